"""A lease in Redis: of several replicas one does what one is enough for."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
import redis.exceptions

from sentimesh.errors import StorageUnavailableError

# The longest that what needs a lease may take; one that dies holds up the next for so long.
LEASE_MS = 600_000

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
"""


@asynccontextmanager
async def lease(client: redis.asyncio.Redis, key: str, what: str) -> AsyncIterator[str | None]:
    """Take the lease ``key`` and give it back: yield a token, or None when another one has it.

    ``what`` Redis keeps there, in words. Raises StorageUnavailableError.
    """
    token = uuid.uuid4().hex
    async with answering(what):
        mine = await client.set(key, token, nx=True, px=LEASE_MS)
    try:
        yield token if mine else None
    finally:
        if mine:
            async with answering(what):
                await client.eval(_RELEASE, 1, key, token)


@asynccontextmanager
async def answering(what: str) -> AsyncIterator[Any]:
    """Turn errors of Redis into StorageUnavailableError; ``what`` it keeps, in words."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        # From None: such an error may quote the URL, which may hold a password.
        raise StorageUnavailableError(
            f"Redis does not keep {what} ({type(error).__name__}): check the server of storage.redis.url"
        ) from None
