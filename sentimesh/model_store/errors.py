"""How the model store fails."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentimesh.errors import SentimeshError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ModelStoreError(SentimeshError):
    """A model cannot be fetched, stored, chosen or removed; those that are stored are as they were."""


def refuse_full_disk(folder: Path, needed: float, what: str) -> None:
    """Raise ModelStoreError when so many bytes have no room where the folder is."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelStoreError(
            f"there is no room left in {folder}: {what} takes {needed:,.0f} bytes and {free:,} are free; "
            "make room, or set model.store to another folder"
        )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise ModelStoreError for a file below the folder that cannot be read or written."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise ModelStoreError(
                f"there is no room left in {folder} ({error.strerror}): make room, or set model.store to another folder"
            ) from None
        what = f"{error.filename or folder}: {error.strerror or type(error).__name__}"
        raise ModelStoreError(
            f"the model store in {folder} cannot be used ({what}): correct that, or set model.store"
        ) from None
