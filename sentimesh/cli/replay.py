"""``sentimesh replay``: recorded posts through the whole real pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingest_svc.sources.replay import ReplaySource
from scorer_svc.model_files import find_model
from sentimesh.errors import SentimeshError
from sentimesh.ledger import Exporter, Ledger
from sentimesh.model_store import ModelStore
from sentimesh.settings import Settings, load_settings
from sentimesh.stack import Stack
from sentimesh.symbols import validate_symbol
from sentimesh.telemetry import configure_logging

# The servers belong to this run alone and are thrown away after it.
REPLAY_STAGES = ("ingest", "filter", "scorer", "aggregator")


class Clock(StrEnum):
    """What closes windows."""

    event = "event"
    system = "system"


class ReplayError(SentimeshError):
    """The replay cannot be done as asked."""


def parse_speed(text: str) -> float | None:
    """Return the pacing factor: None for ``max``, 1.0 for real time, N for N times as fast."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ReplayError(f"--speed {text} is not a speed: give max, 1 (real time) or a number above 0")
    return speed


def replay(
    files: Annotated[list[Path], typer.Argument(help="Recordings (.jsonl or .jsonl.gz), or - for standard input.")],
    clock: Annotated[Clock, typer.Option(help="event: windows close by the posts' own times.")] = Clock.event,
    speed: Annotated[str, typer.Option(help="max, 1 (real time by the posts' times) or a factor.")] = "max",
    symbols: Annotated[str | None, typer.Option(help="Tracked symbols, comma-separated.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name or folder instead of the configured one.")] = None,
    export: Annotated[Path | None, typer.Option(help="Folder for scored, aggregates, spikes, dropped .jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
) -> None:
    """Send recorded posts through ingest, filter, scorer and aggregator, on servers of this run's own."""
    settings = load_settings(config)
    configure_logging("warning", json=settings.telemetry.log_json)
    factor = parse_speed(speed)
    settings = private(settings, clock.value, symbols, model)
    missing = [str(path) for path in files if str(path) != "-" and not path.is_file()]
    if missing:
        raise ReplayError(
            f"there is no file {', '.join(missing)}: give the path of a recording, or - for standard input"
        )
    summary = asyncio.run(_replay(settings, files, factor, export))
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print(summary)


def private(settings: Settings, clock: str, symbols: str | None, model: str | None) -> Settings:
    """Return the settings of a run on throw-away servers, so that recorded posts never mix with live ones."""
    settings = settings.model_copy(deep=True)
    settings.nats.url = None
    settings.storage.redis.url = None
    settings.storage.postgresql.dsn = None
    settings.aggregation.clock = "event" if clock == "event" else "system"
    if symbols is not None:
        settings.symbols = [validate_symbol(symbol) for symbol in symbols.split(",")]
    if model is not None:
        if model != "vader":
            # Asked for by name: no other may stand in for it.
            store = ModelStore.configured(settings)
            find_model(store.source(model), store.folder)
        settings.model.primary = model
    return settings


def count_lines(files: Sequence[Path]) -> int | None:
    """Return how many lines the recordings hold, None when one is standard input."""
    total = 0
    for path in files:
        if str(path) == "-":
            return None
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            total += sum(1 for line in lines if line.strip())
    return total


async def _replay(
    settings: Settings, files: Sequence[Path], speed: float | None, export: Path | None
) -> dict[str, Any]:
    ledger = Ledger()
    total = count_lines(files)
    with contextlib.ExitStack() as exits:
        observers: list[Any] = [ledger]
        if export is not None:
            observers.append(exits.enter_context(Exporter(export, ledger)))
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="sentimesh-replay-"))
        progress = exits.enter_context(_progress())
        task = progress.add_task("replaying", total=total)
        async with Stack(
            settings, stages=REPLAY_STAGES, data_dir=Path(folder), observers=observers, free_ports=True
        ) as stack:
            started = time.monotonic()
            pumping = stack.run_source(ReplaySource([str(path) for path in files], speed=speed))
            finishing = asyncio.ensure_future(_finish(stack, pumping))
            # When the source fails, the stack's own error tells; this one must only not be left unread.
            finishing.add_done_callback(lambda task: task.cancelled() or task.exception())
            while not finishing.done():
                progress.update(task, completed=ledger.accounted)
                await asyncio.wait([finishing], timeout=0.5)
            await finishing
            seconds = time.monotonic() - started
            progress.update(task, completed=ledger.accounted, total=ledger.received)
            windows_written = await stack.windows_written()
    return _summary(ledger, stack.pumps[0].published, seconds, windows_written, _primary(settings))


def _primary(settings: Settings) -> str:
    return ModelStore.configured(settings).primary(settings.model.primary)


async def _finish(stack: Stack, pumping: asyncio.Task[None]) -> None:
    await pumping
    await stack.finish()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("posts"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _summary(ledger: Ledger, published: int, seconds: float, windows_written: int, model: str) -> dict[str, Any]:
    dropped = ledger.dropped
    return {
        "posts_in": published,
        "posts_scored": ledger.scored,
        "posts_without_symbol": dropped.pop(("ingest", "no_symbol"), 0),
        "posts_dropped": {f"{stage}.{reason}": count for (stage, reason), count in sorted(dropped.items())},
        "dead_letters": dict(sorted(ledger.dead_letters.items())),
        "posts_unaccounted": published - ledger.accounted,
        "mentions_scored": ledger.mentions_scored,
        "mentions_not_counted": dict(sorted(ledger.mentions_not_counted.items())),
        "windows": len(ledger.windows),
        "windows_written": windows_written,
        "spikes": len(ledger.spikes),
        "model": model,
        "seconds": round(seconds, 2),
        "posts_per_second": round(published / seconds, 1) if seconds else 0.0,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _print(summary: dict[str, Any]) -> None:
    table = Table(title="Replay", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for key, value in summary.items():
        if isinstance(value, dict):
            for name, count in value.items():
                table.add_row(f"{key.replace('_', ' ')}: {name}", f"{count:,}")
        else:
            table.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)
