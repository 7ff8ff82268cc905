"""Moves posts from a source to the raw streams."""

from __future__ import annotations

import asyncio

import nats.errors
import stamina
import structlog
from nats.js import api

from sentimesh.bus import RAW, Bus
from sentimesh.source import Source, SourcePost
from sentimesh.telemetry import Tracing

log = structlog.get_logger(__name__)

UNCONFIRMED = 1024

_Sent = tuple[SourcePost, dict[str, str], asyncio.Future[api.PubAck]]


class Pump:
    """Publishes what a source yields, in its order; :attr:`published` counts what the broker has confirmed."""

    def __init__(self, source: Source, bus: Bus, tracing: Tracing) -> None:
        self._source = source
        self._bus = bus
        self._tracing = tracing
        self.published = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pump until the source ends or ``stop`` is set; everything sent is confirmed on return."""
        sent: asyncio.Queue[_Sent | None] = asyncio.Queue(UNCONFIRMED)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._confirm(sent))
            async for post in self._source.posts():
                with self._tracing.span("source read", None, {"source": self._source.name, "post": post.identity}):
                    headers = self._tracing.headers()
                async for attempt in stamina.retry_context(
                    on=(nats.errors.Error, OSError, TimeoutError), attempts=None, timeout=None, wait_max=5.0
                ):
                    with attempt:
                        subject = f"{RAW.prefix}.{post.raw.platform}"
                        future = await self._bus.publish(subject, post.raw, post.identity, headers)
                await sent.put((post, headers, future))
                if stop.is_set():
                    break
            await sent.put(None)
        log.info("source.ended", source=self._source.name, posts=self.published)

    async def _confirm(self, sent: asyncio.Queue[_Sent | None]) -> None:
        while (entry := await sent.get()) is not None:
            post, headers, future = entry
            try:
                await asyncio.wait_for(future, 30)
            except (nats.errors.Error, OSError, TimeoutError):
                subject = f"{RAW.prefix}.{post.raw.platform}"
                await self._bus.publish_confirmed([(subject, post.raw, post.identity, headers)])
            self.published += 1
