"""``sentimesh baseline``: the windows of the last days, against which the volume ratio is measured."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import math
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from google.protobuf import json_format
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from aggregator_svc.volume import VolumeBaseline
from sentimesh.build import DAY_MS, now_ms
from sentimesh.cli.replay import count_lines
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import SentimeshError, StorageRefusedError, StorageUnavailableError
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.settings import Settings, load_settings
from sentimesh.storage import AggregateStore, connect
from sentimesh.symbols import SYMBOL_PATTERN
from sentimesh.telemetry import configure_logging

if TYPE_CHECKING:
    from sentimesh.storage.influx import InfluxStore

WINDOWS_AT_ONCE = 5_000
LATEST_MS = 253_402_300_800_000  # the year 10000, after which databases have no name for a time
# Serialized windows by end and symbol: some hundred thousand fit in memory so.
Windows = dict[tuple[int, str], bytes]
Counts = Sequence[tuple[str, int, int]]

app = typer.Typer(
    help="Look at the volume baseline, or fill it from a recording.", no_args_is_help=True, rich_markup_mode=None
)
ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]


class BaselineError(SentimeshError):
    """The baseline cannot be read or filled as asked."""


class BackEnd(Protocol):
    """What keeps windows."""

    async def window_counts(self, symbols: Sequence[str], since_ms: int, until_ms: int) -> Counts: ...  # noqa: D102


@app.command()
def backfill(
    files: Annotated[list[Path], typer.Argument(help="aggregates.jsonl of a replay's export, .gz too, or -.")],
    ending_now: Annotated[
        bool, typer.Option("--ending-now", help="Shift the windows so that the last one is the last full one by now.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write recorded windows to PostgreSQL, and to InfluxDB when it is configured.

    Nothing is written before every line is read. Shifted windows never replace what is known; their scores stay as
    old as they are, so that the gateway shows none of them as of today.
    """
    settings = load_settings(config)
    configure_logging("warning", json=settings.telemetry.log_json)
    window_ms = settings.aggregation.window_seconds * 1000
    missing = [str(path) for path in files if str(path) != "-" and not path.is_file()]
    if missing:
        raise BaselineError(f"there is no file {', '.join(missing)}: name recorded aggregates, or - for standard input")
    with _progress() as progress:
        task = progress.add_task("reading", total=_total(files))
        windows = read_windows(files, window_ms, lambda: progress.advance(task))
        if not windows:
            raise BaselineError(
                f"{', '.join(map(str, files))}: no window in it; `sentimesh replay --export` writes them"
            )
        shift_ms = now_ms() // window_ms * window_ms - max(windows)[0] if ending_now else 0
        written = asyncio.run(_write(settings, windows, shift_ms, progress))
    _say(settings, windows, shift_ms, written)


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show the mean of posts a window of every tracked symbol, and whether that is enough to measure against."""
    settings = load_settings(config)
    configure_logging("warning", json=settings.telemetry.log_json)
    back_end, counts = asyncio.run(_counts(settings))
    known = Counter(symbol for symbol, _, _ in counts)
    options = settings.aggregation
    baseline = VolumeBaseline(days=options.volume_baseline_days, min_windows=options.baseline_min_windows)
    for symbol, end_ms, count in counts:
        baseline.load(symbol, end_ms, count)
    volumes = {symbol: baseline.live(symbol, 0) for symbol in settings.symbols}
    if as_json:
        symbols = [
            {"symbol": symbol, "mean_posts": round(volume.mean, 6), "windows": known[symbol], "ready": volume.ready}
            for symbol, volume in volumes.items()
        ]
        typer.echo(json.dumps({"read_from": back_end, "days": options.volume_baseline_days, "symbols": symbols}))
        return
    table = Table(title=f"Baseline of {options.volume_baseline_days} days, from {back_end}", title_justify="left")
    table.add_column("symbol")
    for title in ("posts a window", "windows", "ready"):
        table.add_column(title, justify="right")
    for symbol, volume in volumes.items():
        table.add_row(symbol, f"{volume.mean:.2f}", f"{known[symbol]:,}", "yes" if volume.ready else "no")
    Console().print(table)


def read_windows(files: Sequence[Path], window_ms: int, on_line: Callable[[], None]) -> Windows:
    """Return the closed windows of recordings, of one that comes twice the newer. Raises BaselineError."""
    windows: Windows = {}
    for path in files:
        for number, line in _lines(path):
            try:
                window = _window(line, window_ms)
            except ValueError as error:
                raise BaselineError(f"{path}:{number}: {error}; mend or remove that line") from error
            key = window.window_end_ms, window.symbol
            known = SentimentAggregate.FromString(windows.get(key, b""))
            # As PostgreSQL decides: a revision starts at 0 again with each process, posts only become more.
            if known.revision <= window.revision or known.post_count < window.post_count:
                windows[key] = window.SerializeToString()
            on_line()
    return windows


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BaselineError(f"{path}:{number + 1}: the compressed file is damaged; record it again") from error
    except OSError as error:
        raise BaselineError(f"cannot read {path}: {error.strerror or error}; name a file you may read, or -") from error


def _open(path: Path) -> AbstractContextManager[Iterable[bytes]]:
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    return gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb")


def _window(line: bytes, window_ms: int) -> SentimentAggregate:
    """Return the window of a line. Raises ValueError that says why it is none."""
    try:
        window = json_format.Parse(line, SentimentAggregate())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError("not a SentimentAggregate in proto3 JSON") from error
    numbers = (value for _, value in window.ListFields() if isinstance(value, float))
    if not SYMBOL_PATTERN.fullmatch(window.symbol):
        raise ValueError(f"{window.symbol[:40]!r} is not a symbol of 1 to 20 letters A-Z or digits")
    if window.live:
        raise ValueError("a live score, not a closed window")
    start_ms, end_ms = window.window_start_ms, window.window_end_ms
    if end_ms - start_ms != window_ms or end_ms % window_ms:
        raise ValueError(f"not a window of the {window_ms // 1000} s that aggregation.window_seconds says")
    if not 0 <= start_ms < end_ms < LATEST_MS or window.post_count < 0 or not all(map(math.isfinite, numbers)):
        raise ValueError("a number in it is out of range")
    return window


async def _write(settings: Settings, windows: Windows, shift_ms: int, progress: Progress) -> dict[str, int]:
    """Return how many windows each back end took. Both are asked before either is written to."""
    async with AsyncExitStack() as exits:
        store = AggregateStore(await exits.enter_async_context(_database(settings)))
        back_ends: dict[str, tuple[BackEnd, Callable[[list[SentimentAggregate]], Any]]] = {
            "PostgreSQL": (store, store.write_windows)
        }
        influx = _series(settings)
        if influx is not None:
            exits.push_async_callback(influx.close)
            await influx.ensure_buckets()
            back_ends["InfluxDB"] = influx, influx.write_windows
        written: dict[str, int] = {}
        for name, (back_end, write) in back_ends.items():
            wanted = await _unknown(back_end, windows, shift_ms) if shift_ms else sorted(windows)
            task = progress.add_task(name, total=len(wanted))
            written[name] = 0
            for first in range(0, len(wanted), WINDOWS_AT_ONCE):
                chunk = [_shifted(windows[key], shift_ms) for key in wanted[first : first + WINDOWS_AT_ONCE]]
                try:
                    # InfluxDB says how many were too old to be kept.
                    written[name] += len(chunk) - (await write(chunk) or 0)
                except (StorageUnavailableError, StorageRefusedError) as error:
                    so_far = ", ".join(f"{count:,} to {place}" for place, count in written.items())
                    raise BaselineError(f"{error}; windows written until then: {so_far}; run it again") from error
                progress.advance(task, len(chunk))
    return written


async def _unknown(back_end: BackEnd, windows: Windows, shift_ms: int) -> list[tuple[int, str]]:
    """Return the windows at whose new time the back end has none."""
    symbols = sorted({symbol for _, symbol in windows})
    first, last = min(windows)[0] + shift_ms, max(windows)[0] + shift_ms
    known = {(end - shift_ms, symbol) for symbol, end, _ in await back_end.window_counts(symbols, first - 1, last)}
    return [key for key in sorted(windows) if key not in known]


def _shifted(serialized: bytes, shift_ms: int) -> SentimentAggregate:
    window = SentimentAggregate.FromString(serialized)
    window.window_start_ms += shift_ms
    window.window_end_ms += shift_ms
    if shift_ms:
        # The real window, should one come, is at least as new.
        window.revision = 0
    return window


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Any]:
    """Yield a pool on the configured PostgreSQL, or on the embedded one, started for as long as this takes."""
    dsn = settings.storage.postgresql.dsn
    async with AsyncExitStack() as exits:
        if dsn is None:
            servers = EmbeddedServers(settings.data_dir, nats=False, redis=False)
            dsn = SecretStr((await exits.enter_async_context(servers)).postgres_dsn)
        pool = await connect(dsn)
        exits.push_async_callback(pool.close)
        yield pool


def _series(settings: Settings) -> InfluxStore | None:
    """Return the configured InfluxDB; whoever has none does without its large library."""
    if settings.storage.influxdb.url is None:
        return None
    from sentimesh.storage.influx import InfluxStore

    return InfluxStore.configured(settings.storage.influxdb)


async def _counts(settings: Settings) -> tuple[str, Counts]:
    """Return the windows of the last days and the name of the back end they are from: InfluxDB, else PostgreSQL."""
    until_ms = now_ms()
    since_ms = until_ms - settings.aggregation.volume_baseline_days * DAY_MS
    influx = _series(settings)
    if influx is not None:
        try:
            return "InfluxDB", await influx.window_counts(settings.symbols, since_ms, until_ms)
        except StorageUnavailableError as error:
            Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"from PostgreSQL, as {error}")
        finally:
            await influx.close()
    async with _database(settings) as pool:
        return "PostgreSQL", await AggregateStore(pool).window_counts(settings.symbols, since_ms, until_ms)


def _total(files: Sequence[Path]) -> int | None:
    try:
        return count_lines(files)
    except (OSError, EOFError, zlib.error):
        # Reading it says what is wrong, and where.
        return None


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"))
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _say(settings: Settings, windows: Windows, shift_ms: int, written: dict[str, int]) -> None:
    symbols = {symbol for _, symbol in windows}
    first, last = (
        dt.datetime.fromtimestamp((key[0] + shift_ms) / 1000, dt.UTC) for key in (min(windows), max(windows))
    )
    minute = "%Y-%m-%d %H:%M"
    typer.echo(f"{len(windows):,} windows of {len(symbols)} symbols, ends {first:{minute}} to {last:{minute}} UTC")
    for name, count in written.items():
        left = len(windows) - count
        why = "known there already or older than its retention" if shift_ms else "older than its retention"
        typer.echo(f"{name}: {count:,} written" + (f", {left:,} {why}" if left else ""))
    untracked = sorted(symbols - set(settings.symbols))
    if untracked:
        typer.echo(f"not tracked: {', '.join(untracked[:10])}{' …' if len(untracked) > 10 else ''}")
    days = settings.aggregation.volume_baseline_days
    if last < dt.datetime.now(dt.UTC) - dt.timedelta(days=days):
        typer.echo(f"none is of the last {days} days, so none counts in the baseline: --ending-now shifts them there")
