"""Keeps a source to the pace of its posts' own times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pacer:
    """Waits so that event time runs ``speed`` times as fast as the clock; ``speed`` None never waits.

    ``monotonic`` gives seconds; ``sleep`` takes seconds.
    """

    def __init__(
        self,
        speed: float | None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Raise ValueError unless ``speed`` is positive or None."""
        if speed is not None and speed <= 0:
            raise ValueError(f"speed is {speed}, expected a positive number")
        self._speed = speed
        self._monotonic = monotonic
        self._sleep = sleep
        self._start: tuple[float, int] | None = None

    async def wait(self, event_time_ms: int) -> None:
        """Return when a post of this time is due; the first one is due at once."""
        if self._speed is None:
            return
        if self._start is None:
            self._start = (self._monotonic(), event_time_ms)
        began, first_ms = self._start
        delay = began + (event_time_ms - first_ms) / 1000 / self._speed - self._monotonic()
        if delay > 0:
            await self._sleep(delay)
