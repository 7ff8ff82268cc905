"""A bounded buffer between the live updates and a client that may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable

from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate


class UpdateBuffer:
    """Holds live updates until they are taken.

    Up to ``limit`` updates wait in order. Past that only the newest of each symbol is kept: a client that
    falls behind skips intermediate states, never the latest one, and memory stays bounded by ``limit`` and
    the number of symbols.
    """

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._waiting: list[SentimentAggregate] = []
        self._changed = asyncio.Event()
        self._closed = False
        self._failure: Exception | None = None

    async def fill(self, updates: AsyncIterable[SentimentAggregate]) -> None:
        """Take in updates until they end; an error of theirs goes to the taker, after what came before it."""
        try:
            async for update in updates:
                self.put(update)
        except Exception as error:
            self._failure = error
        finally:
            self._closed = True
            self._changed.set()

    def put(self, update: SentimentAggregate) -> None:
        """Add one update; never waits."""
        self._waiting.append(update)
        if len(self._waiting) > self._limit:
            newest = {waiting.symbol: waiting for waiting in self._waiting}
            self._waiting = list(newest.values())
        self._changed.set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def drain(self) -> AsyncGenerator[SentimentAggregate, None]:
        """Yield updates as they come, until they end; raises what :meth:`fill` met."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            batch, self._waiting = self._waiting, []
            for update in batch:
                yield update
            if self._closed and not self._waiting:
                break
        if self._failure is not None:
            raise self._failure
