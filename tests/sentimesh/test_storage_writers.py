"""What stands in front of the back ends: the sink of live scores on a real Redis, and writers on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import redis.asyncio
import stamina
from google.protobuf import json_format
from pydantic import SecretStr

from sentimesh.bus import AGGREGATES, DEAD_LETTERS, TOPICS, VIRAL_ALERTS, Bus, Topic
from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.host import StageWorker
from sentimesh.pb.pipeline_pb2 import DeadLetter, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage import AggregateStore, SentimentCache
from sentimesh.storage.writers import LiveSink, WriterStage, spike_key, window_key
from sentimesh.telemetry import Metrics, Tracing

WINDOW = 300_000
START = 1_700_000_400_000 // WINDOW * WINDOW
NOW = START + WINDOW


def aggregate(index: int = 0, symbol: str = "BTC", *, live: bool = False, count: int = 5) -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=START + index * WINDOW,
        window_end_ms=START + (index + 1) * WINDOW,
        social_sentiment_score=0.5,
        post_count=count,
        live=live,
        updated_at_ms=NOW,
    )


def spike(platform: str = "twitter", at_ms: int = START) -> ViralSpike:
    return ViralSpike(symbol="BTC", spike_ratio=9, mention_count=30, detected_at_ms=at_ms, dominant_platform=platform)


@dataclass
class Told:
    """What the callbacks were told."""

    live: list[SentimentAggregate] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    errors: list[StorageUnavailableError] = field(default_factory=list)


@asynccontextmanager
async def running(cache: SentimentCache, told: Told) -> AsyncIterator[LiveSink]:
    async def on_live(aggregates: Sequence[SentimentAggregate]) -> None:
        told.live += aggregates

    sink = LiveSink(
        cache,
        now_ms=lambda: NOW,
        on_live=on_live,
        on_visible=told.visible.extend,
        on_error=told.errors.append,
        first_retry_seconds=0.01,
    )
    task = asyncio.create_task(sink.run())
    yield sink
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own limit ends a wait for ever."""
    while not condition():  # noqa: ASYNC110 (any of several things may make it true)
        await asyncio.sleep(0.01)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client
        await client.config_set("maxmemory", "0")


async def test_live_scores_windows_and_baselines_are_where_readers_look(client: redis.asyncio.Redis) -> None:
    cache, told = SentimentCache(client), Told()
    async with running(cache, told) as sink:
        sink.put_live([aggregate(live=True)], [NOW - 40, NOW - 3])
        sink.put_windows([aggregate(1), aggregate(0), aggregate(0, "ETH")], {"BTC": 5.0})
        await sink.drain()
    assert await cache.get(["BTC", "ETH"]) == [aggregate(live=True), None]
    closed = json_format.Parse(await client.get("social:window:BTC") or b"", SentimentAggregate())
    assert closed == aggregate(1)
    assert await client.get("social:volume_baseline:BTC") == b'{"avg_5min_count":5.0}'
    assert told == Told(live=[aggregate(live=True)], visible=[40, 3])


async def test_a_redis_that_refuses_writes_gets_the_newest_score_once_it_takes_them(
    client: redis.asyncio.Redis,
) -> None:
    cache, told = SentimentCache(client), Told()
    await client.config_set("maxmemory", "1")
    async with running(cache, told) as sink:
        sink.put_live([aggregate(0, live=True)], [NOW - 7])
        await until(lambda: len(told.errors) > 1)
        assert sink.failing
        sink.put_live([aggregate(1, live=True)], [NOW - 5])
        assert told.live == []
        await client.config_set("maxmemory", "0")
        await sink.drain()
        assert not sink.failing
    assert await cache.get(["BTC"]) == [aggregate(1, live=True)]
    assert told.visible == [7, 5]


async def test_an_alert_is_claimed_once_a_cooldown_by_all_who_share_redis(client: redis.asyncio.Redis) -> None:
    one, two = SentimentCache(client, cooldown_seconds=300), SentimentCache(client, cooldown_seconds=300)
    assert await one.claim_alert("BTC", START)
    assert not await two.claim_alert("BTC", START + 299_999)
    assert not await two.claim_alert("BTC", START - 10_000)
    assert await two.claim_alert("ETH", START + 10_000)
    assert await one.claim_alert("BTC", START), "who has alerted may say so again"
    assert await two.claim_alert("BTC", START + 300_000)
    assert 0 < await client.pttl("social:viral_cooldown:BTC") <= 300_000
    assert await SentimentCache(client, cooldown_seconds=0).claim_alert("BTC", START + 300_001)


async def test_without_redis_an_alert_goes_out_all_the_same() -> None:
    told = Told()
    async with (
        redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0") as nobody,
        running(SentimentCache(nobody), told) as sink,
    ):
        assert await sink.claim_alert("BTC", START)
    [error] = told.errors
    assert "storage.redis.url" in str(error)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(SecretStr(nats_url)) as bus:
        for topic in TOPICS:
            await bus.jetstream.delete_stream(topic.stream)
        await bus.ensure_streams()
        yield bus


async def send(bus: Bus, *messages: SentimentAggregate | ViralSpike) -> None:
    for number, message in enumerate(messages):
        prefix = AGGREGATES.prefix if isinstance(message, SentimentAggregate) else VIRAL_ALERTS.prefix
        await (await bus.publish(f"{prefix}.{message.symbol}", message, f"{prefix}{number}"))


@asynccontextmanager
async def writing(
    bus: Bus, name: str, topic: Topic, kind: type[Any], stage: WriterStage[Any]
) -> AsyncIterator[StageWorker]:
    stop = asyncio.Event()
    worker = StageWorker(name, stage, bus, topic, kind, metrics=Metrics(), tracing=Tracing("test", None))
    task = asyncio.create_task(worker.run(stop))
    yield worker
    stop.set()
    await task


async def finished(bus: Bus, worker: StageWorker) -> None:
    async for attempt in stamina.retry_context(on=Exception, attempts=None, timeout=60, wait_max=0.05):
        with attempt:
            assert await bus.lag(worker.topic, worker.durable) == 0


class Shelf:
    """A back end that may be away, hang or refuse."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.away = False
        self.asked = 0
        self.refused: set[int] = set()

    async def write(self, items: Sequence[Any]) -> None:
        self.asked += 1
        if self.away:
            raise StorageUnavailableError("away")
        if any(getattr(item, "post_count", None) in self.refused for item in items):
            raise StorageRefusedError("PostgreSQL refuses a row")
        self.kept += items


async def test_one_back_end_away_does_not_hold_up_the_others_and_catches_up(bus: Bus) -> None:
    there, away = Shelf(), Shelf()
    away.away = True
    stage = WriterStage[SentimentAggregate](away.write, key=window_key)
    async with (
        writing(bus, "one", AGGREGATES, SentimentAggregate, WriterStage(there.write, key=window_key)) as one,
        writing(bus, "two", AGGREGATES, SentimentAggregate, stage) as two,
    ):
        await send(bus, *(aggregate(n) for n in range(5)))
        await finished(bus, one)
        await until(lambda: away.asked > 2)
        assert there.kept == [aggregate(n) for n in range(5)]
        assert away.kept == []
        assert two.waiting
        away.away = False
        await finished(bus, two)
        assert not two.waiting
    assert away.kept == [aggregate(n) for n in range(5)]


async def test_what_came_while_no_writer_ran_is_written_when_one_does(bus: Bus) -> None:
    shelf = Shelf()
    await send(bus, *(aggregate(n) for n in range(3)))
    async with writing(bus, "late", AGGREGATES, SentimentAggregate, WriterStage(shelf.write, key=window_key)) as worker:
        await finished(bus, worker)
    assert shelf.kept == [aggregate(n) for n in range(3)]


async def test_of_a_batch_the_last_of_each_window_is_written(bus: Bus) -> None:
    shelf = Shelf()
    await send(bus, aggregate(0, count=1), aggregate(1, count=1), aggregate(1, "ETH", count=1), aggregate(1, count=2))
    async with writing(bus, "one", AGGREGATES, SentimentAggregate, WriterStage(shelf.write, key=window_key)) as worker:
        await finished(bus, worker)
    assert {(a.symbol, a.window_start_ms): a.post_count for a in shelf.kept} == {
        ("BTC", START): 1,
        ("BTC", START + WINDOW): 2,
        ("ETH", START + WINDOW): 1,
    }
    assert shelf.kept[-1] != aggregate(1, count=1)


async def test_a_row_that_is_refused_becomes_a_dead_letter_and_the_others_are_written(bus: Bus) -> None:
    shelf = Shelf()
    shelf.refused = {13}
    await send(bus, *(aggregate(n, count=10 + n) for n in range(7)))
    async with writing(bus, "pg", AGGREGATES, SentimentAggregate, WriterStage(shelf.write, key=window_key)) as worker:
        await finished(bus, worker)
    assert [kept.post_count for kept in shelf.kept] == [10, 11, 12, 14, 15, 16]
    message = await bus.jetstream.get_msg(DEAD_LETTERS.stream, subject="social.dlq.pg")
    letter = DeadLetter.FromString(message.data or b"")
    assert letter.reason == "PostgreSQL refuses a row"
    assert SentimentAggregate.FromString(letter.payload).post_count == 13


@pytest.mark.parametrize("platform", ["no\x00name", "a platform with a name that does not fit"])
async def test_postgresql_refuses_only_what_it_cannot_hold(bus: Bus, pool: asyncpg.Pool[Any], platform: str) -> None:
    stage = WriterStage[ViralSpike](AggregateStore(pool).write_spikes, key=spike_key)
    await send(bus, spike(at_ms=START), spike(platform, START + 1), spike(at_ms=START + 2))
    async with writing(bus, "postgresql-spikes", VIRAL_ALERTS, ViralSpike, stage) as worker:
        await finished(bus, worker)
    assert await pool.fetchval("SELECT count(*) FROM social_viral_spikes") == 2
    assert await bus.jetstream.get_msg(DEAD_LETTERS.stream, subject="social.dlq.postgresql-spikes")
