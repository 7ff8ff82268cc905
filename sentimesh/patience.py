"""Waiting for a back end no longer than a client should."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Patience:
    """Gives up on reads that take too long, and does not wait for them to take note.

    A cancelled query on a PostgreSQL that hangs ends only with the command's own time-out, half a minute later:
    ``asyncio.timeout`` would wait for that.
    """

    def __init__(self, seconds: float) -> None:
        """``seconds``: that one read may take."""
        self.seconds = seconds
        self._given_up: set[asyncio.Task[Any]] = set()

    async def wait(self, reading: Coroutine[Any, Any, T]) -> T:
        """Return what a read returns; raises TimeoutError when it takes too long."""
        task = asyncio.create_task(reading)
        try:
            await asyncio.wait({task}, timeout=self.seconds)
        finally:
            if not task.done():
                task.cancel()
                self._given_up.add(task)
                task.add_done_callback(self._forget)
        if task in self._given_up:
            raise TimeoutError
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            # Taken, so that asyncio does not report it as never retrieved: the reader was told already.
            task.exception()
