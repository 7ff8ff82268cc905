"""A model as a folder of files: where it is, what its three outputs mean, which version it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from scorer_svc.activation_ranges import ACTIVATION_RANGES
from scorer_svc.manifest import MANIFEST, read_manifest
from scorer_svc.sentiment import Label, ModelError

GRAPH, TOKENIZER, CONFIG = FILES = ("model.onnx", "tokenizer.json", "config.json")
SHIPPED = Path(str(files("scorer_svc"))) / "models"
# SHA-256 of a release to its name, for the files carry no version themselves.
RELEASES = "releases.json"
# The names that published financial models use, compared without case.
LABELS: dict[str, Label] = {
    **dict.fromkeys(("positive", "pos", "bullish", "bull"), "positive"),
    **dict.fromkeys(("negative", "neg", "bearish", "bear"), "negative"),
    **dict.fromkeys(("neutral", "neut", "neu"), "neutral"),
}
POSITIONS_UNSTATED = 512


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder with a usable model.

    ``labels``: what each output means, in order. ``version``: the name under which exactly these files were
    released or stored, else the folder's name and the start of their SHA-256. ``max_positions``: longest input,
    tokens. ``digests``: SHA-256 of each file.
    """

    folder: Path
    labels: tuple[Label, ...]
    version: str
    max_positions: int
    digests: Mapping[str, str]

    @property
    def ranges(self) -> Path | None:
        """Where the ranges of its activations are; None for a model without."""
        return self.folder / ACTIVATION_RANGES if ACTIVATION_RANGES in self.digests else None


def shipped_models() -> list[str]:
    """Return the names of the models that come with the program."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{GRAPH}"))


def find_model(name: str, store: Path | None = None) -> ModelFiles:
    """Return the shipped model of that name, the one in the store's folder, or the one in that folder (a path).

    Raises ModelError when there is none, a file is missing or not the one that was stored, or ``id2label`` does
    not name the three classes.
    """
    folder = _folder(name, store)
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise ModelError(
            f"{name} is no model: {folder} has no {' and no '.join(missing)}; "
            f"give {', '.join(shipped_models())}, vader, {'a stored model, ' if store else ''}"
            f"or a folder with {', '.join(FILES)}"
        )
    return read_model(folder, folder.resolve().name)


def read_model(folder: Path, name: str) -> ModelFiles:
    """Return the model in a folder that has all its files; ``name`` is the version's first part. Raises ModelError."""
    labels, max_positions = read_config(folder / CONFIG)
    manifest = read_manifest(folder)
    files = files_of(folder)
    digests = {file: _sha256(folder / file) for file in files}
    if manifest is not None:
        changed = [file for file in {**digests, **manifest.files} if manifest.files.get(file) != digests.get(file)]
        if changed:
            raise ModelError(
                f"{' and '.join(changed)} in {folder} is not what its manifest says (SHA-256): "
                f"`sentimesh models pull` {manifest.name} again"
            )
        return ModelFiles(folder, labels, manifest.version, max_positions, digests)
    digest = hashlib.sha256(b"".join(bytes.fromhex(digests[file]) for file in files)).hexdigest()
    releases = json.loads((SHIPPED / RELEASES).read_bytes())
    version = releases.get(digest, f"{name}-{digest[:8]}")
    return ModelFiles(folder, labels, version, max_positions, digests)


def files_of(folder: Path) -> list[str]:
    """Return the names of the files that a model consists of: three, and with int8 activations of fixed range four."""
    return [*FILES, ACTIVATION_RANGES] if (folder / ACTIVATION_RANGES).is_file() else [*FILES]


def _folder(name: str, store: Path | None) -> Path:
    if name in shipped_models():
        return SHIPPED / name
    if store is not None and name == Path(name).name and (store / name / MANIFEST).is_file():
        # The link may be set to another version at any moment.
        return (store / name).resolve()
    return Path(name)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): make it readable") from error


def read_config(path: Path) -> tuple[tuple[Label, ...], int]:
    """Return what the outputs mean, in order, and the longest input, tokens. Raises ModelError."""
    try:
        config = json.loads(path.read_bytes())
        return _labels(config), int(config.get("max_position_embeddings", POSITIONS_UNSTATED))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} does not describe a sentiment model ({type(error).__name__}: {error}): "
            "its id2label must say which of the outputs 0, 1 and 2 is positive (or bullish), negative (or bearish) "
            "and neutral"
        ) from error


def _labels(config: Mapping[str, Any]) -> tuple[Label, ...]:
    """Read the order of the outputs; it differs between published models, so it is never assumed."""
    id2label = config["id2label"]
    names = [str(id2label.get(str(index))).strip() for index in range(len(id2label))]
    labels = tuple(LABELS[name.lower()] for name in names if name.lower() in LABELS)
    if sorted(labels) != sorted(set(LABELS.values())) or len(labels) != len(names):
        raise ValueError(f"id2label is {id2label}")
    # A label2id that nobody filled in (LABEL_0 …) says nothing; one that says another order makes both doubtful.
    label2id = config.get("label2id") or {}
    if any(str(label2id.get(name, index)) != str(index) for index, name in enumerate(names)):
        raise ValueError(f"id2label is {id2label} and label2id, which says another order, {label2id}")
    return labels
