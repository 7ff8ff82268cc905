"""Writes results to their back ends, each on its own, so that one being down does not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from sentimesh.errors import SentimeshError, StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate

Item = TypeVar("Item")
Shown = tuple[Sequence[SentimentAggregate], Sequence[int], Mapping[str, float]]
Kept = SentimentAggregate | ViralSpike
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0


class Cache(Protocol):
    """The part of ``sentimesh.storage.SentimentCache`` that is used here."""

    async def put_live(self, aggregates: Sequence[SentimentAggregate]) -> None: ...  # noqa: D102
    async def put_windows(self, aggregates: Sequence[SentimentAggregate]) -> None: ...  # noqa: D102
    async def put_baselines(self, means: Mapping[str, float]) -> None: ...  # noqa: D102


class Store(Protocol):
    """The part of ``sentimesh.storage.AggregateStore`` that is used here."""

    async def upsert_windows(self, aggregates: Sequence[SentimentAggregate]) -> None: ...  # noqa: D102
    async def insert_spikes(self, spikes: Sequence[ViralSpike]) -> None: ...  # noqa: D102


class Lane(Generic[Item]):
    """A bounded queue in front of one back end.

    A batch is tried again for ever while the back end is away; an item that it refuses is reported and left out.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[None]],
        on_error: Callable[[SentimeshError], None],
        capacity: int,
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
    ) -> None:
        self._queue: asyncio.Queue[Item] = asyncio.Queue(capacity)
        self._write = write
        self._on_error = on_error
        self._first_retry_seconds = first_retry_seconds

    async def put(self, item: Item) -> None:
        """Queue an item; waits while the queue is full (back-pressure)."""
        await self._queue.put(item)

    async def run(self) -> None:
        """Write until cancelled. ``write`` must be safe to repeat."""
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write_all(batch)
            for _ in batch:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until all that was put is written."""
        await self._queue.join()

    async def _write_all(self, batch: Sequence[Item]) -> None:
        pause = self._first_retry_seconds
        while True:
            try:
                await self._write(batch)
            except StorageUnavailableError as error:
                self._on_error(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)
            except StorageRefusedError as error:
                if len(batch) == 1:
                    self._on_error(error)
                    return
                break
            else:
                return
        middle = len(batch) // 2
        await self._write_all(batch[:middle])
        await self._write_all(batch[middle:])


class QueuedSink:
    """The aggregator's sink over Redis and PostgreSQL, a lane each."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        *,
        now_ms: Callable[[], int],
        on_live: Callable[[Sequence[SentimentAggregate]], Awaitable[None]],
        on_visible: Callable[[Sequence[int]], None],
        on_error: Callable[[str, SentimeshError], None],
        capacity: int = 10_000,
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
    ) -> None:
        """``on_live`` gets live scores once they are readable in Redis, ``on_visible`` how long their posts took.

        Latencies are milliseconds from received to readable; ``on_error`` gets the back end's name (redis or
        postgresql) and the error. ``capacity``: items that wait for a back end before a put waits.
        """
        self._cache = cache
        self._store = store
        self._now_ms = now_ms
        self._on_live = on_live
        self._on_visible = on_visible
        self._redis: Lane[Shown] = Lane(
            self._write_cache, lambda error: on_error("redis", error), capacity, first_retry_seconds
        )
        self._postgres: Lane[Kept] = Lane(
            self._write_store, lambda error: on_error("postgresql", error), capacity, first_retry_seconds
        )

    async def put_live(self, aggregates: Sequence[SentimentAggregate], received_at_ms: Sequence[int]) -> None:
        """Queue live scores for Redis."""
        await self._redis.put((aggregates, received_at_ms, {}))

    async def put_windows(self, aggregates: Sequence[SentimentAggregate], baselines: Mapping[str, float]) -> None:
        """Queue closed windows for both back ends."""
        await self._redis.put((aggregates, (), baselines))
        for aggregate in aggregates:
            await self._postgres.put(aggregate)

    async def put_spikes(self, spikes: Sequence[ViralSpike]) -> None:
        """Queue spikes for PostgreSQL."""
        for spike in spikes:
            await self._postgres.put(spike)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._redis.run())
            group.create_task(self._postgres.run())

    async def drain(self) -> None:
        """Wait until everything put so far is written."""
        await asyncio.gather(self._redis.drain(), self._postgres.drain())

    async def _write_cache(self, batch: Sequence[Shown]) -> None:
        # The last of each symbol is all that a reader would see.
        live = {a.symbol: a for aggregates, _, _ in batch for a in aggregates if a.live}
        closed = {a.symbol: a for aggregates, _, _ in batch for a in aggregates if not a.live}
        await self._cache.put_live(list(live.values()))
        await self._cache.put_windows(list(closed.values()))
        await self._cache.put_baselines({s: mean for _, _, means in batch for s, mean in means.items()})
        now_ms = self._now_ms()
        await self._on_live(list(live.values()))
        self._on_visible([now_ms - received for _, posts, _ in batch for received in posts])

    async def _write_store(self, batch: Sequence[Kept]) -> None:
        # The last revision of each window is all that would be left.
        windows = {(a.symbol, a.window_start_ms): a for a in batch if isinstance(a, SentimentAggregate)}
        await self._store.upsert_windows(list(windows.values()))
        await self._store.insert_spikes([s for s in batch if isinstance(s, ViralSpike)])
