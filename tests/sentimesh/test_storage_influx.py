"""The time series on a real InfluxDB 2, each test in buckets of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.service.buckets_service import BucketsService
from pydantic import SecretStr

from sentimesh.errors import InvalidSymbolError, StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.settings import InfluxDB
from sentimesh.storage.influx import InfluxStore, scored_line
from tests.influxd import BINARY, ORG, TOKEN, Influxd

pytestmark = pytest.mark.peer

WINDOW = 300_000
DAY = 86_400_000
# Retention is by the server's clock, so windows end in the last minutes of this one.
NOW = time.time_ns() // 1_000_000 // WINDOW * WINDOW
WRONG = "a-wrong-token"


def window(index: int = 0, symbol: str = "BTC", count: int = 5, **changes: Any) -> SentimentAggregate:
    """Return the window that ends ``index`` windows before now."""
    end = NOW - index * WINDOW
    values = {
        "symbol": symbol,
        "window_start_ms": end - WINDOW,
        "window_end_ms": end,
        "polarity": -0.5,
        "volume_ratio": 1.5,
        "credibility": 0.625,
        "social_sentiment_score": 0.75,
        "directional_score": 0.25,
        "post_count": count,
        "unique_authors": 3,
        "baseline_ready": True,
    }
    return SentimentAggregate(**{**values, **changes})


def scored(post_id: str, timestamp_ms: int = NOW, symbol: str = "BTC") -> ScoredPost:
    post = SocialPost(post_id=post_id, platform="twitter", symbol=symbol, text="to the moon", timestamp_ms=timestamp_ms)
    return ScoredPost(
        post=post, polarity=0.5, confidence=0.75, credibility_score=0.25, engagement_weight=2, model_version="m-1"
    )


def spike(symbol: str = "BTC", ratio: float = 6.5) -> ViralSpike:
    return ViralSpike(symbol=symbol, spike_ratio=ratio, mention_count=65, baseline_rate=10, detected_at_ms=NOW)


@pytest.fixture
async def store(influx_section: InfluxDB) -> AsyncIterator[InfluxStore]:
    store = InfluxStore.configured(influx_section)
    assert store is not None
    await store.ensure_buckets()
    yield store
    await store.close()


@asynccontextmanager
async def client(section: InfluxDB) -> AsyncIterator[Any]:
    """Yield the client library itself, to look past the store."""
    assert section.url is not None
    opened: Any = InfluxDBClientAsync(section.url.get_secret_value(), token=TOKEN, org=ORG)
    try:
        yield opened
    finally:
        await opened.close()


async def points(section: InfluxDB, kind: str = "", symbol: str = "BTC") -> list[dict[str, Any]]:
    """Return what is stored, in order of time, a dict of tags, fields and ``_time`` a point."""
    query = """
        from(bucket: bucket) |> range(start: 0, stop: 2100-01-01T00:00:00Z) |> filter(fn: (r) => r.symbol == symbol)
        |> map(fn: (r) => ({r with _time: int(v: r._time), _value: string(v: r._value)}))
        |> drop(columns: ["_start", "_stop"]) |> group()
    """
    async with client(section) as reading:
        parameters = {"bucket": section.bucket + kind, "symbol": symbol}
        text = await reading.query_api().query_raw(query, params=parameters)
    header, *rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")] or [[]]
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        record = {name: cell for name, cell in zip(header, row, strict=True) if name not in ("", "result", "table")}
        field, value = record.pop("_field"), record.pop("_value")
        found.setdefault(tuple(record.values()), record)[field] = value
    return sorted(found.values(), key=lambda point: int(point["_time"]))


async def retentions(section: InfluxDB) -> dict[str, int]:
    """Return days by bucket, of those of this test."""
    buckets: Any = BucketsService
    async with client(section) as reading:
        found = (await buckets(reading.api_client).get_buckets_async(org=ORG, limit=100)).buckets
    ours = [bucket for bucket in found if bucket.name.startswith(section.bucket)]
    return {bucket.name: bucket.retention_rules[0].every_seconds * 1000 // DAY for bucket in ours}


async def test_buckets_are_made_with_their_retention(store: InfluxStore, influx_section: InfluxDB) -> None:
    name = influx_section.bucket
    assert await retentions(influx_section) == {name: 90, f"{name}_posts": 7, f"{name}_spikes": 365}


async def test_another_retention_is_taken_over_and_points_stay(store: InfluxStore, influx_section: InfluxDB) -> None:
    await store.write_windows([window()])
    changed = influx_section.model_copy(update={"aggregate_retention_days": 1, "scored_posts_retention_days": 2})
    other = InfluxStore.configured(changed)
    assert other is not None
    for _ in range(2):
        await other.ensure_buckets()
    await other.close()
    name = influx_section.bucket
    assert await retentions(influx_section) == {name: 1, f"{name}_posts": 2, f"{name}_spikes": 365}
    assert len(await points(influx_section)) == 1


async def test_buckets_made_by_many_at_once(influx_section: InfluxDB) -> None:
    stores = [InfluxStore.configured(influx_section) for _ in range(8)]
    await asyncio.gather(*(store.ensure_buckets() for store in stores if store))
    assert sorted((await retentions(influx_section)).values()) == [7, 90, 365]
    for store in stores:
        assert store is not None
        await store.close()


async def test_a_window_is_a_point_at_its_end(store: InfluxStore, influx_section: InfluxDB) -> None:
    assert await store.write_windows([window(viral_spike=True, revision=2), window(0, "ETH")]) == 0
    assert await points(influx_section) == [
        {
            "_measurement": "sentiment_aggregate",
            "_time": str(NOW * 1_000_000),
            "symbol": "BTC",
            "polarity": "-0.5",
            "volume_ratio": "1.5",
            "credibility": "0.625",
            "social_sentiment_score": "0.75",
            "directional_score": "0.25",
            "post_count": "5",
            "unique_authors": "3",
            "viral_spike": "true",
            "baseline_ready": "true",
            "insufficient_data": "false",
            "revision": "2",
            "window_start_ms": str(NOW - WINDOW),
        }
    ]


async def test_a_scored_post_is_a_point_without_text_or_author(store: InfluxStore, influx_section: InfluxDB) -> None:
    assert await store.write_scored([scored("twitter:1", NOW + 123)]) == 0
    [point] = await points(influx_section, "_posts")
    assert int(point.pop("_time")) // 1_000_000 == NOW + 123
    assert point == {
        "_measurement": "scored_posts",
        "symbol": "BTC",
        "platform": "twitter",
        "model_version": "m-1",
        "polarity": "0.5",
        "confidence": "0.75",
        "credibility_score": "0.25",
        "engagement_weight": "2",
    }


async def test_a_spike_is_a_point_at_its_detection(store: InfluxStore, influx_section: InfluxDB) -> None:
    assert await store.write_spikes([spike()]) == 0
    assert await points(influx_section, "_spikes") == [
        {
            "_measurement": "viral_spikes",
            "_time": str(NOW * 1_000_000),
            "symbol": "BTC",
            "spike_ratio": "6.5",
            "mention_count": "65",
            "baseline_rate": "10",
        }
    ]


async def test_writing_again_doubles_nothing_and_a_revision_replaces(
    store: InfluxStore, influx_section: InfluxDB
) -> None:
    for _ in range(2):
        await store.write_windows([window(), window(1)])
        await store.write_scored([scored("twitter:1"), scored("twitter:2")])
        await store.write_spikes([spike()])
    await store.write_windows([window(), window(count=6, revision=1)])
    assert [point["post_count"] for point in await points(influx_section)] == ["5", "6"]
    assert len(await points(influx_section, "_posts")) == 2
    assert len(await points(influx_section, "_spikes")) == 1


async def test_posts_of_the_same_moment_stay_apart(store: InfluxStore, influx_section: InfluxDB) -> None:
    second = NOW - 2000
    same_second = [scored(f"twitter:{number}", second) for number in range(2000)]
    same_millisecond = [scored(f"twitter:{number}", second + 1001) for number in range(50)]
    await store.write_scored(same_second + same_millisecond)
    times = [int(point["_time"]) for point in await points(influx_section, "_posts")]
    assert len(times) == 2050
    # Where the platform counts in seconds the second stays, and the millisecond where it counts in those.
    assert {time // 1_000_000_000 for time in times[:2000]} == {second // 1000}
    assert {time // 1_000_000 for time in times[2000:]} == {second + 1001}


def test_the_time_of_a_post_is_always_the_same() -> None:
    # A number that a change of the hash would change: stored points are found by it.
    assert scored_line(scored("twitter:1", 1_700_000_000_000)).rsplit(" ", 1)[1] == "1700000000965741163"


async def test_an_expired_point_stops_no_other(store: InfluxStore, influx_section: InfluxDB) -> None:
    expired = window(100 * DAY // WINDOW)
    assert await store.write_windows([expired, window(), window(101 * DAY // WINDOW), window(1)]) == 2
    assert await store.write_windows([expired]) == 1
    assert [point["_time"] for point in await points(influx_section)] == [
        f"{NOW - WINDOW}000000",
        f"{NOW}000000",
    ]
    assert await store.write_scored([scored("twitter:1", NOW - 8 * DAY), scored("twitter:2")]) == 1
    assert len(await points(influx_section, "_posts")) == 1
    assert await store.write_spikes([spike()]) == 0


async def test_expired_points_of_many_requests_are_counted(store: InfluxStore) -> None:
    posts = [scored(f"twitter:{number}", NOW - (number % 2) * 8 * DAY) for number in range(2500)]
    assert await store.write_scored(posts) == 1250


@pytest.mark.parametrize(
    "impossible",
    [window(symbol=""), window(symbol="BTC,x=1"), window(polarity=float("nan")), window(window_end_ms=2**60)],
    ids=["no symbol", "not a symbol", "not a number", "out of time"],
)
async def test_what_can_never_be_stored_is_refused(store: InfluxStore, impossible: SentimentAggregate) -> None:
    with pytest.raises(StorageRefusedError, match="InfluxDB"):
        await store.write_windows([impossible])
    assert await store.write_windows([window()]) == 0


async def test_a_field_of_another_type_is_refused(store: InfluxStore, influx_section: InfluxDB) -> None:
    client: Any = InfluxDBClientAsync(str(influx_section.url and influx_section.url.get_secret_value()), TOKEN, ORG)
    await client.write_api().write(
        influx_section.bucket, record=f"sentiment_aggregate,symbol=X revision=0.5 {NOW}000000"
    )
    await client.close()
    with pytest.raises(StorageRefusedError, match="already exists as type float"):
        await store.write_windows([window()])


async def test_live_scores_are_left_out(store: InfluxStore, influx_section: InfluxDB) -> None:
    await store.write_windows([window(live=True)])
    assert await points(influx_section) == []


async def test_counts_are_those_of_windows_that_end_in_the_span(store: InfluxStore) -> None:
    await store.write_windows([window(index, symbol, 10 + index) for index in range(4) for symbol in ("ETH", "BTC")])
    await store.write_windows([window(2, "SOL")])
    counts = await store.window_counts(["BTC", "ETH", "XMR", "ETH"], NOW - 3 * WINDOW, NOW - WINDOW)
    assert counts == [
        ("BTC", NOW - 2 * WINDOW, 12),
        ("ETH", NOW - 2 * WINDOW, 12),
        ("BTC", NOW - WINDOW, 11),
        ("ETH", NOW - WINDOW, 11),
    ]
    assert await store.window_counts(["BTC"], NOW, NOW) == []
    assert await store.window_counts([], NOW - WINDOW, NOW) == []
    assert await store.window_counts(["BTC"], NOW - WINDOW, NOW) == [("BTC", NOW, 10)]


async def test_counts_of_more_symbols_than_one_query_holds(store: InfluxStore) -> None:
    symbols = [f"S{number:03}" for number in range(45)]
    await store.write_windows([window(0, symbol, number) for number, symbol in enumerate(symbols)])
    counts = await store.window_counts(symbols, NOW - WINDOW, NOW)
    assert counts == [(symbol, NOW, number) for number, symbol in enumerate(symbols)]


async def test_a_symbol_cannot_change_the_query(store: InfluxStore) -> None:
    await store.write_windows([window()])
    for symbol in ('BTC" or true or r.symbol == "', "BTC)", "symbol0 or true", ""):
        with pytest.raises(InvalidSymbolError):
            await store.window_counts([symbol], NOW - WINDOW, NOW)


Call = Callable[[InfluxStore], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "ping": lambda store: store.ping(),
    "ensure_buckets": lambda store: store.ensure_buckets(),
    "write_windows": lambda store: store.write_windows([window()]),
    "write_scored": lambda store: store.write_scored([scored("twitter:1")]),
    "write_spikes": lambda store: store.write_spikes([spike()]),
    "window_counts": lambda store: store.window_counts(["BTC"], NOW - WINDOW, NOW),
}


async def outage(store: InfluxStore, call: Call) -> str:
    """Return the sentence of an outage, which has no cause with more in it."""
    with pytest.raises(StorageUnavailableError) as caught:
        await call(store)
    await store.close()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_wrong_token_is_an_outage_and_not_repeated(influx: Influxd, call: Call) -> None:
    said = await outage(InfluxStore(SecretStr(influx.url), SecretStr(WRONG)), call)
    assert "401" in said
    assert WRONG not in said


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_an_organisation_that_is_not_there_is_an_outage(influx: Influxd, call: Call) -> None:
    assert '"nobody" not found' in await outage(
        InfluxStore(SecretStr(influx.url), SecretStr(TOKEN), org="nobody"), call
    )


async def test_a_bucket_that_is_not_there_is_an_outage_of_writes(influx: Influxd) -> None:
    store = InfluxStore(SecretStr(influx.url), SecretStr(TOKEN), bucket="never_made")
    await store.ping()
    assert 'bucket "never_made" not found' in await outage(store, CALLS["write_windows"])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n,resu",
    ],
    ids=["nothing", "half a body", "half a chunk"],
)
async def test_a_server_that_hangs_is_an_outage(call: Call, answer: bytes) -> None:
    hung: list[asyncio.StreamWriter] = []

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)
        writer.write(answer)

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        store = InfluxStore(SecretStr(f"http://{host}:{port}"), SecretStr(TOKEN), timeout_seconds=0.2)
        assert "does not answer (TimeoutError)" in await outage(store, call)
        for writer in hung:
            writer.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "head", ["400 Bad Request", "301 Moved Permanently\r\nLocation: http://127.0.0.1:1/", "503 Service Unavailable"]
)
async def test_the_answer_of_another_server_refuses_no_point(call: Call, head: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhat?".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        store = InfluxStore(SecretStr(f"http://{host}:{port}"), SecretStr(TOKEN))
        assert f"HTTP {head[:3]}" in await outage(store, call)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nobody_listening_is_an_outage(call: Call) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = InfluxStore(SecretStr(f"http://127.0.0.1:{taken.getsockname()[1]}"), SecretStr(TOKEN))
        assert "does not answer (ClientConnectorError)" in await outage(store, call)


@pytest.mark.skipif(not BINARY.is_file(), reason=".peers/bin/influxd is not here: `make peers` builds it")
async def test_a_killed_server_is_an_outage_until_it_is_back_with_all_that_was_written(tmp_path: Path) -> None:
    server = await asyncio.to_thread(Influxd, tmp_path)
    try:
        store = InfluxStore.configured(server.section())
        assert store is not None
        await store.ensure_buckets()
        await store.write_windows([window(2), window(1)])
        server.kill()
        for call in (store.ping(), store.write_windows([window()]), store.window_counts(["BTC"], 0, NOW)):
            with pytest.raises(StorageUnavailableError):
                await call
        await asyncio.to_thread(server.start)
        await store.ping()
        await store.write_windows([window()])
        assert await store.window_counts(["BTC"], NOW - DAY, NOW) == [
            ("BTC", NOW - index * WINDOW, 5) for index in (2, 1, 0)
        ]
        await store.close()
    finally:
        await asyncio.to_thread(server.stop)


async def test_no_url_is_no_store() -> None:
    assert InfluxStore.configured(InfluxDB()) is None
