"""The writers in front of the back ends: real ones, ones that are away, ones that refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from sentimesh.errors import SentimeshError, StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage import AggregateStore, SentimentCache
from sentimesh.storage.writers import Cache, QueuedSink, Store

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
class Shelf:
    """Any back end: keeps what it gets once it is there, and says when it was asked."""

    there: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    waits: bool = False
    kept: list[Any] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    async def _keep(self, items: Sequence[Any]) -> None:
        if not items:
            return
        self.asked.set()
        if self.waits:
            await self.there.wait()
        if not self.there.is_set():
            raise StorageUnavailableError("away")
        if any(getattr(item, "post_count", None) in self.refused for item in items):
            raise StorageRefusedError("a row that can never be stored")
        self.kept += items

    async def put_live(self, aggregates: Sequence[SentimentAggregate]) -> None:
        await self._keep(aggregates)

    async def put_windows(self, aggregates: Sequence[SentimentAggregate]) -> None:
        await self._keep(aggregates)

    async def put_baselines(self, means: Mapping[str, float]) -> None:
        await self._keep(list(means.items()))

    async def upsert_windows(self, aggregates: Sequence[SentimentAggregate]) -> None:
        await self._keep(aggregates)

    async def insert_spikes(self, spikes: Sequence[ViralSpike]) -> None:
        await self._keep(spikes)


def shelf(*, there: bool = True, waits: bool = False) -> Shelf:
    made = Shelf(waits=waits)
    if there:
        made.there.set()
    return made


@dataclass
class Told:
    """What the callbacks were told."""

    live: list[SentimentAggregate] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    errors: list[tuple[str, SentimeshError]] = field(default_factory=list)


async def until(condition: Callable[[], bool]) -> None:
    """Let the lanes run until it holds; the test's own limit ends a wait for ever."""
    while not condition():  # noqa: ASYNC110 (a turn of the loop, not a time)
        await asyncio.sleep(0)


@asynccontextmanager
async def running(cache: Cache, store: Store, told: Told, capacity: int = 100) -> AsyncIterator[QueuedSink]:
    async def on_live(aggregates: Sequence[SentimentAggregate]) -> None:
        told.live += aggregates

    sink = QueuedSink(
        cache,
        store,
        now_ms=lambda: NOW,
        on_live=on_live,
        on_visible=told.visible.extend,
        on_error=lambda backend, error: told.errors.append((backend, error)),
        capacity=capacity,
        first_retry_seconds=0,
    )
    task = asyncio.create_task(sink.run())
    yield sink
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[SentimentCache]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield SentimentCache(client)


async def test_everything_ends_up_where_readers_look(cache: SentimentCache, pool: asyncpg.Pool[Any]) -> None:
    store, told = AggregateStore(pool), Told()
    async with running(cache, store, told) as sink:
        await sink.put_live([aggregate(live=True)], [NOW - 40, NOW - 3])
        await sink.put_windows([aggregate(0), aggregate(0, "ETH")], {"BTC": 5.0, "ETH": 5.0})
        await sink.put_spikes([spike()])
        await sink.drain()
    assert await cache.get(["BTC", "ETH"]) == [aggregate(live=True), None]
    assert await store.latest(["BTC", "ETH"]) == [aggregate(0), aggregate(0, "ETH")]
    assert await pool.fetchval("SELECT count(*) FROM social_viral_spikes") == 1
    assert told == Told(live=[aggregate(live=True)], visible=[40, 3])


async def test_one_back_end_away_does_not_hold_up_the_others_and_catches_up() -> None:
    cache, store, told = shelf(), shelf(there=False), Told()
    async with running(cache, store, told) as sink:
        await sink.put_windows([aggregate(0)], {"BTC": 5.0})
        await sink.put_live([aggregate(1, live=True)], [NOW])
        await until(lambda: len(told.errors) >= 3 and bool(told.live))
        assert cache.kept == [aggregate(1, live=True), aggregate(0), ("BTC", 5.0)]
        assert {(backend, str(error)) for backend, error in told.errors} == {("postgresql", "away")}
        assert store.kept == []
        store.there.set()
        await sink.drain()
    assert store.kept == [aggregate(0)]


async def test_a_full_queue_makes_the_stage_wait() -> None:
    cache, store, told = shelf(), shelf(there=False, waits=True), Told()
    async with running(cache, store, told, capacity=2) as sink:
        await sink.put_spikes([spike(at_ms=START)])
        await store.asked.wait()
        # One is being written, two wait, and there is no room for a fourth.
        await sink.put_spikes([spike(at_ms=START + 1), spike(at_ms=START + 2)])
        fourth = asyncio.create_task(sink.put_spikes([spike(at_ms=START + 3)]))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not fourth.done()
        # The other back end takes what is for it meanwhile.
        await sink.put_live([aggregate(live=True)], [])
        await until(lambda: bool(told.live))
        store.there.set()
        await fourth
        await sink.drain()
    assert [kept.detected_at_ms - START for kept in store.kept] == [0, 1, 2, 3]
    assert told.errors == []


async def test_the_newest_of_each_window_and_symbol_is_written() -> None:
    cache, store, told = shelf(), shelf(there=False, waits=True), Told()
    async with running(cache, store, told) as sink:
        await sink.put_windows([aggregate(0, count=1)], {})
        await store.asked.wait()
        await sink.put_windows([aggregate(1, count=1), aggregate(1, "ETH", count=1)], {})
        await sink.put_windows([aggregate(1, count=2)], {})
        store.there.set()
        await sink.drain()
    assert store.kept == [aggregate(0, count=1), aggregate(1, count=2), aggregate(1, "ETH", count=1)]


async def test_a_row_that_is_refused_is_reported_and_the_others_are_written() -> None:
    cache, store, told = shelf(), shelf(), Told()
    store.refused = {13}
    async with running(cache, store, told) as sink:
        await sink.put_windows([aggregate(n, count=10 + n) for n in range(7)], {})
        await sink.drain()
    assert [kept.post_count for kept in store.kept] == [10, 11, 12, 14, 15, 16]
    assert [(backend, type(error)) for backend, error in told.errors] == [("postgresql", StorageRefusedError)]


@pytest.mark.parametrize("platform", ["no\x00name", "a platform with a name that does not fit"])
async def test_postgresql_refuses_only_what_it_cannot_hold(
    cache: SentimentCache, pool: asyncpg.Pool[Any], platform: str
) -> None:
    told = Told()
    async with running(cache, AggregateStore(pool), told) as sink:
        await sink.put_spikes([spike(at_ms=START), spike(platform, START + 1), spike(at_ms=START + 2)])
        await sink.drain()
    assert await pool.fetchval("SELECT count(*) FROM social_viral_spikes") == 2
    [(backend, error)] = told.errors
    assert backend == "postgresql"
    assert isinstance(error, StorageRefusedError)
