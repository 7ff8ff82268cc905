"""Redis away: waited for at first, because an answer without it may be another one, then done without."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from sentimesh.errors import StorageUnavailableError

PATIENCE_SECONDS = 30.0
PROBE_SECONDS = 5.0

T = TypeVar("T")


class Outage:
    """What all that asks one Redis knows of whether it answers."""

    def __init__(
        self,
        patience_seconds: float = PATIENCE_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_degraded: Callable[[str], object] = lambda _what: None,
    ) -> None:
        """``patience_seconds``: how long an outage is waited for; ``clock``: seconds.

        ``on_degraded`` is told what was answered without Redis.
        """
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._on_degraded = on_degraded
        self._since: float | None = None
        self._next_probe = 0.0

    async def ask(self, what: str, question: Callable[[], Awaitable[T]], stand_in: Callable[[], T]) -> T:
        """Return the answer of Redis, or, once an outage has been waited for, what ``stand_in`` returns.

        ``what`` is one word, a metric's label. Raises StorageUnavailableError while the outage is young; afterwards
        Redis is asked again every few seconds.
        """
        if self._since is not None and self._clock() < self._next_probe:
            self._on_degraded(what)
            return stand_in()
        try:
            answer = await question()
        except (RedisError, OSError) as error:
            now = self._clock()
            if self._since is None:
                self._since = now
            if now - self._since < self._patience_seconds:
                # From None: such an error may quote the URL.
                raise StorageUnavailableError(
                    f"Redis does not answer ({type(error).__name__}): see that it runs at storage.redis.url"
                ) from None
            self._next_probe = now + PROBE_SECONDS
            self._on_degraded(what)
            return stand_in()
        self._since = None
        self._next_probe = 0.0
        return answer
