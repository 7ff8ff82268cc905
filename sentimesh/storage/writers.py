"""Writes results to their back ends, each on its own, so that one being down does not hold up the others.

What is to be kept is read from its stream, where it waits for days if it must: a back end's buffer is its consumer.
Of what only the newest state matters (live scores in Redis) one entry a symbol waits here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import stamina
from google.protobuf.message import Message

from sentimesh.errors import SentimeshError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.stage import Delivery, Outcome, Stage

Kept = TypeVar("Kept", bound=Message)
# Latencies that wait for a Redis that is away; of more only the newest are reported.
LATENCIES_HELD = 100_000


class WriterStage(Stage[Kept], Generic[Kept]):
    """A stage that ends in a back end. The host retries while it is away and dead-letters what it refuses."""

    def __init__(
        self,
        write: Callable[[Sequence[Kept]], Awaitable[object]],
        *,
        key: Callable[[Kept], Hashable],
        on_written: Callable[[float], None] = lambda _milliseconds: None,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        """``write`` must be safe to repeat. Of several messages with the same ``key`` in a batch the last is written.

        ``on_written`` is told how many milliseconds a batch took, ``on_error`` that one could not be written.
        """
        self._write = write
        self._key = key
        self._on_written = on_written
        self._on_error = on_error

    async def process(self, batch: Sequence[Delivery[Kept]]) -> Sequence[Sequence[Outcome]]:
        """Write a batch. Raises StorageUnavailableError or StorageRefusedError."""
        newest = {self._key(delivery.message): delivery.message for delivery in batch}
        started = time.monotonic()
        try:
            await self._write(list(newest.values()))
        except SentimeshError:
            self._on_error()
            raise
        self._on_written((time.monotonic() - started) * 1000)
        return [()] * len(batch)

    async def tick(self) -> Sequence[Outcome]:
        """Do nothing."""
        return ()

    def session(self) -> WriterStage[Kept]:
        """Return itself: it has no state, and no gRPC service either."""
        return self


def window_key(aggregate: SentimentAggregate) -> Hashable:
    """Return what makes two closed windows the same row: a later revision replaces an earlier one."""
    return aggregate.symbol, aggregate.window_start_ms


def spike_key(spike: ViralSpike) -> Hashable:
    """Return what makes two messages one write: a spike's end is not to replace its beginning."""
    return spike.symbol, spike.detected_at_ms, spike.resolved_at_ms


class Cache(Protocol):
    """The part of ``sentimesh.storage.SentimentCache`` that is used here."""

    async def put_live(self, aggregates: Sequence[SentimentAggregate]) -> None: ...  # noqa: D102
    async def put_windows(self, aggregates: Sequence[SentimentAggregate]) -> None: ...  # noqa: D102
    async def put_baselines(self, means: Mapping[str, float]) -> None: ...  # noqa: D102
    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool: ...  # noqa: D102


class LiveSink:
    """The aggregator's sink: what readers see, in Redis, the newest of each symbol."""

    def __init__(
        self,
        cache: Cache,
        *,
        now_ms: Callable[[], int],
        on_live: Callable[[Sequence[SentimentAggregate]], Awaitable[None]],
        on_visible: Callable[[Sequence[int]], None],
        on_error: Callable[[StorageUnavailableError], None],
        first_retry_seconds: float = 0.1,
    ) -> None:
        """``on_live`` gets live scores once they are readable in Redis, ``on_visible`` how long their posts took.

        Latencies are milliseconds from received to readable.
        """
        self._cache = cache
        self._now_ms = now_ms
        self._on_live = on_live
        self._on_visible = on_visible
        self._on_error = on_error
        self._first_retry_seconds = first_retry_seconds
        self.failing = False
        self._live: dict[str, SentimentAggregate] = {}
        self._closed: dict[str, SentimentAggregate] = {}
        self._baselines: dict[str, float] = {}
        self._received: deque[int] = deque(maxlen=LATENCIES_HELD)
        self._changed = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def put_live(self, aggregates: Sequence[SentimentAggregate], received_at_ms: Sequence[int]) -> None:
        """Show live scores."""
        self._live.update((aggregate.symbol, aggregate) for aggregate in aggregates)
        self._received.extend(received_at_ms)
        self._touch()

    def put_windows(self, aggregates: Sequence[SentimentAggregate], baselines: Mapping[str, float]) -> None:
        """Show closed windows, the newest of each symbol, and the baselines."""
        for aggregate in aggregates:
            shown = self._closed.get(aggregate.symbol)
            if shown is None or shown.window_start_ms <= aggregate.window_start_ms:
                self._closed[aggregate.symbol] = aggregate
        self._baselines.update(baselines)
        self._touch()

    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool:
        """Ask Redis; while it is away the answer is yes, because an alert twice is better than none."""
        try:
            return await self._cache.claim_alert(symbol, detected_at_ms)
        except StorageUnavailableError as error:
            self._on_error(error)
            return True

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            async for attempt in stamina.retry_context(
                on=StorageUnavailableError,
                attempts=None,
                timeout=None,
                wait_initial=self._first_retry_seconds,
                wait_max=5.0,
                wait_jitter=self._first_retry_seconds,
            ):
                with attempt:
                    await self._write()
            if not self._changed.is_set():
                self._written.set()

    async def drain(self) -> None:
        """Wait until everything put so far is written."""
        await self._written.wait()

    def _touch(self) -> None:
        self._written.clear()
        self._changed.set()

    async def _write(self) -> None:
        live, closed, baselines = dict(self._live), dict(self._closed), dict(self._baselines)
        try:
            await self._cache.put_live(list(live.values()))
            await self._cache.put_windows(list(closed.values()))
            await self._cache.put_baselines(baselines)
        except StorageUnavailableError as error:
            self.failing = True
            self._on_error(error)
            raise
        self.failing = False
        now_ms = self._now_ms()
        received = list(self._received)
        self._received.clear()
        for waiting, written in ((self._live, live), (self._closed, closed)):
            for symbol, aggregate in written.items():
                if waiting.get(symbol) is aggregate:
                    del waiting[symbol]
        self._baselines = {s: mean for s, mean in self._baselines.items() if baselines.get(s) != mean}
        await self._on_live(list(live.values()))
        self._on_visible([now_ms - at_ms for at_ms in received])
