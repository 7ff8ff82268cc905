"""``sentimesh baseline``: recorded windows into both back ends, and what is known of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from sentimesh.cli import baseline
from sentimesh.cli.app import app
from sentimesh.errors import StorageUnavailableError
from sentimesh.ledger import json_line
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.settings import InfluxDB
from sentimesh.storage import AggregateStore
from sentimesh.storage.influx import InfluxStore
from tests.influxd import TOKEN

WINDOW = 300_000
DAY = 86_400_000
START = 1_571_100_000_000
SYMBOLS = ("BTC", "ETH")


def window(index: int, symbol: str = "BTC", start_ms: int = START, **changes: Any) -> SentimentAggregate:
    return SentimentAggregate(
        **{
            "symbol": symbol,
            "window_start_ms": start_ms + index * WINDOW,
            "window_end_ms": start_ms + (index + 1) * WINDOW,
            "social_sentiment_score": 0.75,
            "post_count": index,
            "platform_breakdown": {"twitter": index},
            "updated_at_ms": start_ms + (index + 1) * WINDOW + 5000,
            **changes,
        }
    )


def recorded(path: Path, *windows: SentimentAggregate) -> Path:
    path.write_text("".join(map(json_line, windows)), encoding="utf-8")
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Twenty windows of 2019, 0 to 19 posts, of two symbols."""
    return recorded(tmp_path / "aggregates.jsonl", *(window(i, symbol) for i in range(20) for symbol in SYMBOLS))


@pytest.fixture
async def store(pool: asyncpg.Pool[Any], postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AggregateStore:
    """The configured PostgreSQL."""
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)
    monkeypatch.setenv("SENTIMESH__SYMBOLS", json.dumps(SYMBOLS))
    name = await pool.fetchval("SELECT current_database()")
    monkeypatch.setenv("SENTIMESH__STORAGE__POSTGRESQL__DSN", f"{postgres_dsn.rsplit('/', 1)[0]}/{name}")
    return AggregateStore(pool)


@pytest.fixture
def influxdb(influx_section: InfluxDB, monkeypatch: pytest.MonkeyPatch) -> InfluxDB:
    """The configured InfluxDB."""
    assert influx_section.url is not None
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", influx_section.url.get_secret_value())
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", TOKEN)
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__BUCKET", influx_section.bucket)
    return influx_section


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    # PostgreSQL, when the tests run as root, is another user and has to get here.
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        if parent.owner() == tmp_path.owner() and parent != Path("/"):
            parent.chmod(0o755)
    return tmp_path / "data"


async def run(*arguments: str, stdin: bytes = b"") -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["baseline", *arguments], input=stdin))


async def refusal(*arguments: str, stdin: bytes = b"") -> str:
    result = await run(*arguments, stdin=stdin)
    assert result.exit_code == 1
    assert isinstance(result.exception, baseline.BaselineError), result.exception
    return str(result.exception)


async def shown() -> dict[str, Any]:
    result = await run("show", "--json")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


async def test_recorded_windows_are_written_as_they_are(store: AggregateStore, recording: Path) -> None:
    for _ in range(2):
        result = await run("backfill", str(recording))
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            "40 windows of 2 symbols, ends 2019-10-15 00:45 to 2019-10-15 02:20 UTC",
            "PostgreSQL: 40 written",
            "none is of the last 7 days, so none counts in the baseline: --ending-now shifts them there",
        ]
        assert await store.latest(["BTC", "ETH"]) == [window(19), window(19, "ETH")]
        assert await store.count_windows() == 40


async def test_compressed_files_and_standard_input(store: AggregateStore, tmp_path: Path) -> None:
    packed = tmp_path / "aggregates.jsonl.gz"
    packed.write_bytes(gzip.compress(json_line(window(0)).encode()))
    result = await run("backfill", str(packed), "-", stdin=f"\n{json_line(window(1, 'SHIB'))}".encode())
    assert result.exit_code == 0, result.output
    assert "not tracked: SHIB" in result.stdout
    assert await store.latest(["BTC", "SHIB"]) == [window(0), window(1, "SHIB")]


async def test_of_a_window_that_comes_twice_the_newer_is_taken(store: AggregateStore, tmp_path: Path) -> None:
    newer, older = window(0, revision=1, post_count=7), window(0, revision=0, post_count=6)
    path = recorded(tmp_path / "twice.jsonl", newer, older)
    assert (await run("backfill", str(path))).exit_code == 0
    assert await store.latest(["BTC"]) == [newer]


async def test_a_fresh_installation_has_a_baseline_at_once(
    store: AggregateStore, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() // 1_000_000
    monkeypatch.setattr(baseline, "now_ms", lambda: now)
    empty = {"mean_posts": 0.0, "windows": 0, "ready": False}
    assert (await shown())["symbols"] == [{"symbol": symbol, **empty} for symbol in SYMBOLS]
    result = await run("backfill", "--ending-now", str(recording))
    assert result.exit_code == 0, result.output
    assert "PostgreSQL: 40 written\n" in result.stdout
    known = {"mean_posts": 9.5, "windows": 20, "ready": True}
    assert await shown() == {
        "read_from": "PostgreSQL",
        "days": 7,
        "symbols": [{"symbol": symbol, **known} for symbol in SYMBOLS],
    }
    shift = now // WINDOW * WINDOW - window(19).window_end_ms
    [last] = await store.latest(["BTC"])
    # The score is as old as it was, so that the gateway does not show it as of today.
    expected = window(19, start_ms=START + shift)
    expected.updated_at_ms = window(19).updated_at_ms
    assert last == expected


async def test_without_a_server_the_embedded_one_is_used(
    recording: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)
    monkeypatch.setenv("SENTIMESH__SYMBOLS", '["BTC"]')
    monkeypatch.setenv("SENTIMESH__DATA_DIR", str(data_dir))
    result = await run("backfill", "--ending-now", str(recording))
    assert result.exit_code == 0, result.output
    [row] = (await shown())["symbols"]
    assert (row["windows"], row["ready"]) == (20, True)


async def test_shifted_windows_replace_none_that_is_known(
    store: AggregateStore, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() // 1_000_000 // WINDOW * WINDOW
    monkeypatch.setattr(baseline, "now_ms", lambda: now + 1)
    real = window(0, start_ms=now - WINDOW, post_count=3)
    await store.write_windows([real])
    result = await run("backfill", "--ending-now", str(recording))
    assert "PostgreSQL: 39 written, 1 known there already or older than its retention" in result.stdout
    assert await store.latest(["BTC"]) == [real]
    # A real window that closes later takes the place of a shifted one, whatever revision that had.
    real = window(0, "ETH", start_ms=now - WINDOW, post_count=1)
    await store.write_windows([real])
    assert await store.latest(["ETH"]) == [real]


@pytest.mark.peer
async def test_both_back_ends_get_them_and_influxdb_is_read_first(
    store: AggregateStore, influxdb: InfluxDB, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await run("backfill", str(recording))
    assert result.exit_code == 0, result.output
    assert "PostgreSQL: 40 written\nInfluxDB: 0 written, 40 older than its retention\n" in result.stdout
    result = await run("backfill", "--ending-now", str(recording))
    assert "PostgreSQL: 40 written\nInfluxDB: 40 written\n" in result.stdout
    from_influxdb = await shown()
    assert from_influxdb["read_from"] == "InfluxDB"
    assert from_influxdb["symbols"][0] == {"symbol": "BTC", "mean_posts": 9.5, "windows": 20, "ready": True}
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", "wrong")
    result = await run("show", "--json")
    assert json.loads(result.stdout) == {**from_influxdb, "read_from": "PostgreSQL"}
    assert result.stderr.startswith("from PostgreSQL, as InfluxDB does not do its work (HTTP 401")


async def test_nothing_is_written_while_one_back_end_is_away(
    store: AggregateStore, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", TOKEN)
    result = await run("backfill", str(recording))
    assert isinstance(result.exception, StorageUnavailableError)
    assert await store.count_windows() == 0


@pytest.mark.peer
async def test_what_was_written_before_an_error_is_said(
    store: AggregateStore, influxdb: InfluxDB, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "WINDOWS_AT_ONCE", 15)
    write, calls = InfluxStore.write_windows, 0

    async def write_once(self: InfluxStore, windows: list[SentimentAggregate]) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StorageUnavailableError("InfluxDB went away")
        return await write(self, windows)

    monkeypatch.setattr(InfluxStore, "write_windows", write_once)
    said = await refusal("backfill", "--ending-now", str(recording))
    assert said == ("InfluxDB went away; windows written until then: 40 to PostgreSQL, 15 to InfluxDB; run it again")


GOOD = json_line(window(0))
NO_WINDOW = "not a window of the 300 s that aggregation.window_seconds says"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a SentimentAggregate in proto3 JSON"),
        ("[1]", "not a SentimentAggregate in proto3 JSON"),
        ('{"surprise": 1}', "not a SentimentAggregate in proto3 JSON"),
        ("\xff", "not a SentimentAggregate in proto3 JSON"),
        (json_line(window(0, "btc")), "'btc' is not a symbol of 1 to 20 letters A-Z or digits"),
        (json_line(window(0, "")), "'' is not a symbol of 1 to 20 letters A-Z or digits"),
        (json_line(window(0, live=True)), "a live score, not a closed window"),
        (json_line(window(0, window_end_ms=START + WINDOW + 1)), NO_WINDOW),
        (json_line(window(0, start_ms=START + 1)), NO_WINDOW),
        (json_line(window(0, start_ms=-1000 * WINDOW)), "a number in it is out of range"),
        (json_line(window(0, start_ms=10**12 * WINDOW)), "a number in it is out of range"),
        (json_line(window(0, post_count=-1)), "a number in it is out of range"),
        (json_line(window(0, polarity=float("nan"))), "a number in it is out of range"),
        (json_line(window(0, volume_ratio=float("inf"))), "a number in it is out of range"),
    ],
)
async def test_a_line_that_is_no_window_is_named_and_nothing_written(
    store: AggregateStore, tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(f"{GOOD}\n{line.strip()}\n{GOOD}".encode("latin-1"))
    assert await refusal("backfill", str(path)) == f"{path}:3: {reason}; mend or remove that line"
    assert await store.count_windows() == 0


async def test_a_damaged_archive_is_named(store: AggregateStore, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress((GOOD * 100).encode(), mtime=0)[:-9])
    assert (await refusal("backfill", str(path))).endswith("the compressed file is damaged; record it again")
    path.write_text(GOOD)
    assert await refusal("backfill", str(path)) == f"{path}:1: the compressed file is damaged; record it again"


async def test_no_file_and_no_window_are_said(store: AggregateStore, tmp_path: Path) -> None:
    absent, empty = tmp_path / "absent.jsonl", recorded(tmp_path / "empty.jsonl")
    assert (await refusal("backfill", str(empty), str(absent))).startswith(f"there is no file {absent}: ")
    assert await refusal("backfill", str(empty)) == f"{empty}: no window in it; `sentimesh replay --export` writes them"


async def test_the_table_says_where_it_was_read_and_what_is_ready(store: AggregateStore) -> None:
    now = time.time_ns() // 1_000_000 // WINDOW * WINDOW
    first = now - 12 * WINDOW
    await store.write_windows(
        [window(index, "BTC", first) for index in range(12)] + [window(index, "ETH", first) for index in range(11)]
    )
    result = await run("show")
    assert result.exit_code == 0, result.output
    assert "Baseline of 7 days, from PostgreSQL" in result.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert rows == [["BTC", "5.50", "12", "yes"], ["ETH", "5.00", "11", "no"]]
