"""The folder of the stored models, and which of them is chosen."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from scorer_svc.manifest import MANIFEST
from scorer_svc.model_files import SHIPPED, ModelFiles, find_model, shipped_models
from scorer_svc.model_store import load_model
from sentimesh.model_store.errors import ModelStoreError, writing
from sentimesh.settings import Settings

# model.primary: the chosen model, or the default one.
AUTO = "auto"
DEFAULT_MODEL = "sentimesh-base"
VADER = "vader"
FINBERT = "finbert"
CURRENT = "current"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CHECK_TEXTS = ("Bitcoin to the moon", "it is over, sell everything")
CHECK_TOKENS = 8


class ModelStore:
    """Stored models: each name is a link to a folder that is whole, so putting one in place is a single rename.

    ``.versions`` holds the folders, ``.downloads`` what is being fetched, ``current`` the name of the chosen model.
    A process that runs has its model in memory and notices nothing of a change.
    """

    def __init__(self, folder: Path, exported: Path | None = None) -> None:
        """``folder`` need not exist before something is stored.

        ``exported``: the folder of a FinBERT that something else keeps, which need not exist at any time.
        """
        self.folder = folder
        self._exported = exported

    @classmethod
    def configured(cls, settings: Settings) -> ModelStore:
        """Return the store of model.store, with the FinBERT of model.model_path."""
        return cls(settings.model_store(), settings.exported_finbert())

    def names(self) -> list[str]:
        """Return the names of the stored models, without the shipped ones."""
        return sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{MANIFEST}"))

    def folders(self) -> dict[str, Path]:
        """Return the folder of every model by name: stored, exported elsewhere, shipped."""
        stored = {name: self.folder / name for name in self.names()}
        return stored | self._elsewhere() | {name: SHIPPED / name for name in shipped_models()}

    def source(self, name: str) -> str:
        """Return what :func:`find_model` finds the model by: its name or, of one exported elsewhere, its folder.

        ``finbert`` is the exported one while none is stored and the folder is there, so ask at each load.
        """
        return str(self._elsewhere().get(name, name))

    def primary(self, configured: str) -> str:
        """Return which model is to score: the configured one, for ``auto`` the chosen one or sentimesh-base."""
        if configured != AUTO:
            return configured
        try:
            return (self.folder / CURRENT).read_text(encoding="utf-8").strip() or DEFAULT_MODEL
        except (FileNotFoundError, NotADirectoryError):
            return DEFAULT_MODEL
        except (OSError, UnicodeDecodeError) as error:
            raise ModelStoreError(f"{self.folder / CURRENT} cannot be read ({error}): remove it") from None

    def verify(self, name: str) -> str:
        """Compare all checksums of a model, load it and score two texts; return its version.

        Raises ModelStoreError or ModelError.
        """
        if name != VADER:
            self._refuse_unknown(name)
            found = find_model(self.source(name), self.folder)
            if found.folder == SHIPPED / name and found.version.rsplit("-", 1)[0] != name:
                raise ModelStoreError(f"{name} is not as it was released: install sentimesh again")
            check(found)
            return found.version
        return load_model(VADER).model_version

    def use(self, name: str) -> str:
        """Make a model the one that ``auto`` stands for from the next start on; return its version.

        Raises ModelStoreError or ModelError when it is not there or does not score.
        """
        version = self.verify(name)
        with self.locked():
            temporary = self.folder / f".{CURRENT}-{secrets.token_hex(4)}"
            temporary.write_text(f"{name}\n", encoding="utf-8")
            temporary.replace(self.folder / CURRENT)
        return version

    def remove(self, name: str, in_use: Collection[str]) -> None:
        """Delete a stored model. Raises ModelStoreError for the one in use and for shipped ones."""
        if name in (VADER, *shipped_models()):
            raise ModelStoreError(f"{name} comes with the program and cannot be removed")
        self._refuse_unknown(name)
        if name in self._elsewhere():
            raise ModelStoreError(f"{name} is not in the store but in {self.source(name)} (model.model_path)")
        if name in in_use:
            raise ModelStoreError(f"{name} is in use: `sentimesh models use` another one first")
        with self.locked():
            path = self.folder / name
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)
            shutil.rmtree(self.folder / ".downloads" / name, ignore_errors=True)
            self._sweep()

    def refuse_name(self, name: str) -> None:
        """Raise ModelStoreError for what cannot be the name of a stored model."""
        if name in (AUTO, VADER, CURRENT, *shipped_models()):
            raise ModelStoreError(f"a stored model cannot be called {name}: choose another name")
        if not NAME.fullmatch(name):
            raise ModelStoreError(
                f"{name!r} is no name for a model: use up to 64 lower-case letters, digits, dots, hyphens, underscores"
            )
        path = self.folder / name
        if path.exists() and not path.is_symlink():
            raise ModelStoreError(f"{path} was not put there by `sentimesh models pull`: move it away")

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Give an empty folder that takes the name's place when the block ends well, and is deleted when not.

        Only within :meth:`locked`.
        """
        self._sweep()
        versions = self.folder / ".versions"
        versions.mkdir(exist_ok=True)
        made = versions / f"{name}-{secrets.token_hex(4)}"
        made.mkdir()
        try:
            yield made
            for path in [*made.iterdir(), made, versions]:
                _sync(path)
            link = self.folder / f".{made.name}"
            link.symlink_to(made.relative_to(self.folder))
            link.replace(self.folder / name)
            _sync(self.folder)
        finally:
            self._sweep()

    def downloads(self, name: str, revision: str) -> Path:
        """Return the folder for what is fetched of a model; it outlives a failure."""
        folder = self.folder / ".downloads" / name / revision
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that changes the store. Raises ModelStoreError, also for what cannot be written."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ModelStoreError(f"another process is changing {self.folder}: wait for it") from None
                yield

    def _refuse_unknown(self, name: str) -> None:
        known = self.folders()
        if name not in known:
            raise ModelStoreError(f"there is no model {name}: there are {', '.join([*known, VADER])}")

    def _elsewhere(self) -> dict[str, Path]:
        if self._exported is None or FINBERT in self.names() or not self._exported.is_dir():
            return {}
        return {FINBERT: self._exported}

    def _sweep(self) -> None:
        """Delete what a killed process or an earlier version of a name left behind."""
        linked = {
            path.resolve() for path in self.folder.iterdir() if path.is_symlink() and not path.name.startswith(".")
        }
        for path in self.folder.glob(".versions/*"):
            if path.resolve() not in linked:
                shutil.rmtree(path)
        for path in self.folder.glob(".*-*"):
            path.unlink()


def check(found: ModelFiles) -> None:
    """Load a model and score texts. Raises ModelError when it cannot."""
    # Imported when it is wanted: ONNX Runtime takes longer to load than the rest.
    from scorer_svc.onnx_model import OnnxModel

    model = OnnxModel(found, max_length=CHECK_TOKENS, cache_size=0)
    try:
        model.score(CHECK_TEXTS)
    finally:
        model.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
