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


class Pump:
    """Publishes what a source yields, in its order; :attr:`published` counts what the broker has confirmed."""

    def __init__(self, source: Source, bus: Bus, tracing: Tracing) -> None:
        self._source = source
        self._bus = bus
        self._tracing = tracing
        self.published = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pump until the source ends or ``stop`` is set; everything sent is confirmed on return."""
        pending: list[tuple[SourcePost, dict[str, str], asyncio.Future[api.PubAck]]] = []
        async for post in self._source.posts():
            subject = f"{RAW.prefix}.{post.raw.platform}"
            with self._tracing.span("source read", None, {"source": self._source.name, "post": post.identity}):
                headers = self._tracing.headers()
            async for attempt in stamina.retry_context(
                on=(nats.errors.Error, OSError, TimeoutError), attempts=None, timeout=None, wait_max=5.0
            ):
                with attempt:
                    future = await self._bus.publish(subject, post.raw, post.identity, headers)
            pending.append((post, headers, future))
            if len(pending) >= UNCONFIRMED:
                await self._confirm(pending[: UNCONFIRMED // 2])
                del pending[: UNCONFIRMED // 2]
            if stop.is_set():
                break
        await self._confirm(pending)
        log.info("source.ended", source=self._source.name, posts=self.published)

    async def _confirm(self, pending: list[tuple[SourcePost, dict[str, str], asyncio.Future[api.PubAck]]]) -> None:
        results = await asyncio.gather(*(future for _, _, future in pending), return_exceptions=True)
        again = [
            (f"{RAW.prefix}.{post.raw.platform}", post.raw, post.identity, headers)
            for (post, headers, _), result in zip(pending, results, strict=True)
            if isinstance(result, BaseException)
        ]
        if again:
            await self._bus.publish_confirmed(again)
        self.published += len(pending)
