"""Fetching a model's files from the Hugging Face hub, at one commit, with their checksums."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # documented, but not in its __all__

from sentimesh.model_store.errors import NO_ROOM, ModelStoreError, refuse_full_disk

ANSWER_SECONDS = 30
AGAIN = "run the command again, it goes on where it stopped"


class Repository:
    """A repository of the hub at one commit; HF_ENDPOINT and HF_TOKEN are read by huggingface_hub."""

    def __init__(self, name: str, revision: str, endpoint: str | None = None) -> None:
        """``name``: owner/name. ``revision``: the commit. Raises ModelStoreError when the hub does not have it."""
        self.revision = revision
        self._name = name
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        parts = urlsplit(self._endpoint)
        # Without what may stand before an @.
        self._host = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
        self.source = f"{self._host}/{name}"
        # The library's warnings name addresses; what matters comes as an error.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        # With it the library asks the public hub for a list first, wherever HF_ENDPOINT is, and reports what calls it.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        with self._explained("its list of files"):
            self._info: ModelInfo = HfApi(endpoint=self._endpoint).model_info(
                name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS
            )
            self._files = {file.rfilename: file for file in self._info.siblings or []}
        if self._info.sha != revision:
            raise ModelStoreError(f"{self._host} gives another commit of {name} than model.finbert.revision {revision}")

    @property
    def licence(self) -> str:
        """What the model card says."""
        card = self._info.card_data
        return str(card.license) if card and card.license else "not stated"

    def fetch(self, name: str, target: Path) -> None:
        """Put a file in place once its checksum is right; what is there of it already is not fetched again.

        Raises ModelStoreError.
        """
        file = self._files.get(name)
        if file is None or file.size is None:
            raise ModelStoreError(
                f"{self.source} has no file {name} at {self.revision}: correct model.finbert in the configuration"
            )
        if target.is_file() and _as_listed(target, file):
            return
        partial = target.with_name(f"{target.name}.part")
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        with partial.open("ab") as output:
            self._download(file, output.tell(), output)
        if not _as_listed(partial, file):
            partial.unlink()
            raise ModelStoreError(
                f"{name} of {self.source} arrived with another checksum than the hub lists, and was deleted: "
                "run the command again; if it stays so, something on the way changes files"
            )
        partial.replace(target)

    def _download(self, file: RepoSibling, there: int, output: BinaryIO) -> None:
        assert file.size is not None  # noqa: S101
        refuse_full_disk(Path(output.name).parent, file.size - there, file.rfilename)
        with self._explained(file.rfilename):
            http_get(
                hf_hub_url(self._name, file.rfilename, revision=self.revision, endpoint=self._endpoint),
                output,
                resume_size=there,
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.rfilename,
            )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise what goes wrong as a sentence; from None and without the library's words, which may quote a token."""
        try:
            yield
        except RevisionNotFoundError:
            raise ModelStoreError(
                f"{self.source} has no revision {self.revision}: correct model.finbert.revision in the configuration"
            ) from None
        except RepositoryNotFoundError:
            raise ModelStoreError(
                f"there is no {self.source}, or HF_TOKEN does not open it: correct model.finbert.repository or that"
            ) from None
        except RemoteEntryNotFoundError:
            raise ModelStoreError(
                f"{self.source} has no file {what} at {self.revision}: correct model.finbert"
            ) from None
        except OfflineModeIsEnabled:
            raise ModelStoreError("HF_HUB_OFFLINE is set: unset it, or give a folder instead of finbert") from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise ModelStoreError(f"{self._host} answers {status} for {what} of {self._name}: {AGAIN}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ModelStoreError(
                f"{self._host} cannot be reached for {what} of {self._name} ({type(error).__name__}): look at "
                f"HF_ENDPOINT and the network, and {AGAIN}"
            ) from None
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise ModelStoreError(f"{what} of {self.source} ended early: {AGAIN}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelStoreError(
                f"{self._host} does not answer like a hub ({type(error).__name__}): look at HF_ENDPOINT and HF_TOKEN"
            ) from None


def _as_listed(path: Path, file: RepoSibling) -> bool:
    """Compare with the hub's list: SHA-256 of large files, git's hash of small ones."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        if file.lfs is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.lfs.sha256
        # Not for security: the commit's own hash is of this kind.
        blob = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        while chunk := content.read(1 << 20):
            blob.update(chunk)
        return blob.hexdigest() == file.blob_id
