"""Moves posts from a source to the raw streams."""

from __future__ import annotations

import asyncio

import structlog

from sentimesh.bus import RAW, Bus, Publication
from sentimesh.source import Source
from sentimesh.telemetry import Tracing

log = structlog.get_logger(__name__)

WAITING_LIMIT = 1024
BATCH = 256


class Pump:
    """Publishes what a source yields, in its order; :attr:`published` counts what the broker has confirmed."""

    def __init__(self, source: Source, bus: Bus, tracing: Tracing) -> None:
        self._source = source
        self._bus = bus
        self._tracing = tracing
        self.published = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pump until the source ends or ``stop`` is set; everything read is confirmed on return."""
        waiting: asyncio.Queue[Publication | None] = asyncio.Queue(WAITING_LIMIT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish(waiting))
            async for post in self._source.posts():
                with self._tracing.span("source read", None, {"source": self._source.name, "post": post.identity}):
                    headers = self._tracing.headers()
                await waiting.put((f"{RAW.prefix}.{post.raw.platform}", post.raw, post.identity, headers))
                if stop.is_set():
                    break
            await waiting.put(None)
        log.info("source.ended", source=self._source.name, posts=self.published)

    async def _publish(self, waiting: asyncio.Queue[Publication | None]) -> None:
        ended = False
        while not ended:
            entries = [await waiting.get()]
            while entries[-1] is not None and len(entries) < BATCH and not waiting.empty():
                entries.append(waiting.get_nowait())
            ended = entries[-1] is None
            batch = [entry for entry in entries if entry is not None]
            await self._bus.publish_confirmed(batch)
            self.published += len(batch)
