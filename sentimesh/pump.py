"""Moves posts from a source to the raw streams."""

from __future__ import annotations

import asyncio

import structlog
from nats.js import api

from sentimesh.bus import CONFIRM_SECONDS, RAW, UNCONFIRMED, Bus
from sentimesh.source import Source, SourcePost
from sentimesh.telemetry import Tracing

log = structlog.get_logger(__name__)

SENT_LIMIT = 1024

# The future is None where not even sending worked.
_Sent = tuple[asyncio.Future[api.PubAck] | None, SourcePost, dict[str, str]]


class Pump:
    """Publishes what a source yields, in its order; :attr:`published` counts what the broker has confirmed."""

    def __init__(self, source: Source, bus: Bus, tracing: Tracing) -> None:
        self._source = source
        self._bus = bus
        self._tracing = tracing
        self.published = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pump until the source ends or ``stop`` is set; everything sent is confirmed on return."""
        sent: asyncio.Queue[_Sent | None] = asyncio.Queue(SENT_LIMIT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._confirm(sent))
            async for post in self._source.posts():
                with self._tracing.span("source read", None, {"source": self._source.name, "post": post.identity}):
                    headers = self._tracing.headers()
                await sent.put((await self._publish(post, headers), post, headers))
                if stop.is_set():
                    break
            await sent.put(None)
        log.info("source.ended", source=self._source.name, posts=self.published)

    async def _publish(self, post: SourcePost, headers: dict[str, str]) -> asyncio.Future[api.PubAck] | None:
        try:
            return await self._bus.publish(_subject(post), post.raw, post.identity, headers)
        except UNCONFIRMED:
            return None

    async def _confirm(self, sent: asyncio.Queue[_Sent | None]) -> None:
        while (entry := await sent.get()) is not None:
            future, post, headers = entry
            if future is not None and not future.done():
                await asyncio.wait([future], timeout=CONFIRM_SECONDS)
            if future is None or not future.done() or future.cancelled() or future.exception():
                await self._bus.publish_confirmed([(_subject(post), post.raw, post.identity, headers)])
            self.published += 1


def _subject(post: SourcePost) -> str:
    return f"{RAW.prefix}.{post.raw.platform}"
