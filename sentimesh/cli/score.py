"""``sentimesh score``: what a model says about texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import orjson
import typer

from scorer_svc.model_store import load_model
from sentimesh.errors import SentimeshError
from sentimesh.model_store import ModelStore
from sentimesh.settings import load_settings

# Texts scored at a time: enough for every thread, few enough to see lines come.
CHUNK = 32


class TextInputError(SentimeshError, ValueError):
    """A text to score that cannot be read."""


def score(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts to score.")] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", help='A file with a {"text": …} object a line; - is standard input.')
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="A shipped or stored model, vader, or a model's folder.")
    ] = "sentimesh-base",
) -> None:
    """Print a JSON line a text, in order: text, polarity, confidence, label, model_version."""
    if bool(texts) == (jsonl is not None):
        raise typer.BadParameter("give texts, or a file of them with --jsonl, not both", param_hint="TEXT")
    store = ModelStore.configured(load_settings(None))
    scorer = load_model(store.source(model), store=store.folder, threads=os.cpu_count() or 1)
    remaining = _arguments(texts or []) if jsonl is None else _file(jsonl)
    while chunk := list(islice(remaining, CHUNK)):
        lines = [
            orjson.dumps(
                {
                    "text": text,
                    "polarity": sentiment.polarity,
                    "confidence": sentiment.confidence,
                    "label": sentiment.label,
                    "model_version": scorer.model_version,
                }
            )
            for text, sentiment in zip(chunk, scorer.score(chunk), strict=True)
        ]
        # Bytes: JSON is UTF-8 whatever the terminal's encoding.
        typer.echo(b"\n".join(lines))


def _arguments(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TextInputError(f"text {number} is not UTF-8 ({error.reason}): give it in UTF-8") from error
        yield text


def _file(path: Path) -> Iterator[str]:
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            yield from _lines(file, path)
    except OSError as error:
        raise TextInputError(f"{path} cannot be read ({error.strerror}): give a file of JSON lines") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            text = orjson.loads(line)["text"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            text = None
        if not isinstance(text, str):
            raise TextInputError(f'{path}:{number} is not a JSON object with a string "text": correct that line')
        yield text
