"""What is known of a stored model: where it came from and what exactly its files are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scorer_svc.sentiment import Label, ModelError

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """The ``manifest.json`` in a stored model's folder; it is written last, so a folder with one is whole.

    ``source``: the repository or path it was taken from, ``revision``: its commit, None for a path. ``files``: name
    to SHA-256. ``labels``: what the outputs mean, in order. ``max_length``: longest input, tokens. ``licence``: as
    its source states it. ``vocabulary``: how many tokens of the crypto vocabulary it was given.
    ``quantization``: None for weights as they came.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    source: str
    revision: str | None
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    labels: tuple[Label, ...]
    max_length: int
    licence: str
    vocabulary: int
    quantization: str | None


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a model's folder, None where there is none. Raises ModelError for one that is broken."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
        raise ModelError(
            f"{path} is no manifest ({where}: {error.errors()[0]['msg']}): pull the model again"
        ) from error
