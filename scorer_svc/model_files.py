"""A model as a folder of files: where it is, what its three outputs mean, which version it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from scorer_svc.sentiment import Label, ModelError

GRAPH, TOKENIZER, CONFIG = FILES = ("model.onnx", "tokenizer.json", "config.json")
# SHA-256 of a release to its name, for the files carry no version themselves.
RELEASES = "releases.json"
# The names that published financial models use, compared without case.
LABELS: dict[str, Label] = {
    "positive": "positive",
    "bullish": "positive",
    "negative": "negative",
    "bearish": "negative",
    "neutral": "neutral",
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder with a usable model.

    ``labels``: what each output means, in order. ``version``: the name under which exactly these files were
    released, else the folder's name and the start of their SHA-256. ``max_positions``: longest input, tokens.
    """

    folder: Path
    labels: tuple[Label, ...]
    version: str
    max_positions: int


def find_model(name: str) -> ModelFiles:
    """Return the shipped model of that name, or the one in that folder (a path).

    Raises ModelError when there is none, a file is missing, or ``id2label`` does not name the three classes.
    """
    store = Path(str(files("scorer_svc"))) / "models"
    shipped = sorted(path.parent.name for path in store.glob(f"*/{GRAPH}"))
    folder = store / name if name in shipped else Path(name)
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise ModelError(
            f"{name} is no model: {folder} has no {' and no '.join(missing)}; "
            f"give {', '.join(shipped)}, vader, or a folder with {', '.join(FILES)}"
        )
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        labels = _labels(config["id2label"])
        max_positions = int(config.get("max_position_embeddings", 512))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder / CONFIG} does not describe a sentiment model ({type(error).__name__}: {error}): "
            "its id2label must say which of the outputs 0, 1 and 2 is positive (or bullish), negative (or bearish) "
            "and neutral"
        ) from error
    digest = hashlib.sha256(b"".join(hashlib.sha256((folder / file).read_bytes()).digest() for file in FILES))
    releases = json.loads((store / RELEASES).read_bytes())
    version = releases.get(digest.hexdigest(), f"{folder.resolve().name}-{digest.hexdigest()[:8]}")
    return ModelFiles(folder, labels, version, max_positions)


def _labels(id2label: dict[str, str]) -> tuple[Label, ...]:
    """Read the order of the outputs; it differs between published models, so it is never assumed."""
    named = [LABELS.get(str(id2label.get(str(index))).strip().lower()) for index in range(len(id2label))]
    labels = tuple(label for label in named if label is not None)
    if sorted(labels) != sorted(set(LABELS.values())) or len(labels) != len(named):
        raise ValueError(f"id2label is {id2label}")
    return labels
