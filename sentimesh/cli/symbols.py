"""``sentimesh symbols``: which tracked symbols a text names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from sentimesh.errors import SentimeshError
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.symbols import TrackedExtractor, load_assets

_BATCH = 1000


class TextsError(SentimeshError):
    """A file of texts that cannot be read."""


def read_texts(path: Path) -> list[str]:
    """Return the texts of a file of ``{"text": …}`` lines (``-``: standard input); blank lines are skipped.

    Raises TextsError, which names file and line.
    """
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise TextsError(f"cannot read {path}: {error.strerror}; name a file of {{'text': …}} lines") from error
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise TextsError(f"{path}:{number}: not JSON ({error}); mend or remove that line") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise TextsError(f"{path}:{number}: expected an object with a string named text; mend or remove that line")
        texts.append(record["text"])
    return texts


def symbols(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to look at.")] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", metavar="FILE", help='A file of {"text": …} lines; - is standard input.')
    ] = None,
    tracked: Annotated[
        str | None,
        typer.Option(
            "--symbols", metavar="A,B", help="Symbols to look for instead of the 20 that are tracked by default."
        ),
    ] = None,
) -> None:
    """Print, for each text, a JSON line with the tracked symbols it names, in order of first appearance."""
    wanted = texts or []
    if bool(wanted) == (jsonl is not None):
        raise typer.BadParameter("give texts or --jsonl FILE, one of them")
    if jsonl is not None:
        wanted = read_texts(jsonl)
    chosen = DEFAULT_SYMBOLS if tracked is None else [item for item in tracked.split(",") if item.strip()]
    extractor = TrackedExtractor(load_assets(chosen))
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        for text, found in zip(batch, extractor.extract(batch), strict=True):
            typer.echo(orjson.dumps({"text": text, "symbols": found}))
