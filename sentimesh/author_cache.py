"""What was learned of authors in Redis: the multipliers that the filter asks for, and how they are swapped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import redis.asyncio

from filter_svc.author_history import AUTHOR_CREDIBILITY_KEY
from sentimesh.lease import LEASE_MS, answering, lease

KEPT = "what was learned of authors"
FIELDS_AT_ONCE = 1_000

# KEYS: the hash. ARGV: the lease's token, now, time to live. Nobody sees a state in between.
_SWAP = """
local base, token = KEYS[1], ARGV[1]
local new = base .. ':new:' .. token
if redis.call('GET', base .. ':lease') ~= token then
  return 0
end
redis.call('UNLINK', base)
if redis.call('EXISTS', new) == 1 then
  redis.call('RENAME', new, base)
  redis.call('PEXPIRE', base, ARGV[3])
end
redis.call('HSET', base .. ':state', 'learned_ms', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class LearningState:
    """When it was last learned and last tried, epoch milliseconds, 0 for never."""

    learned_ms: int = 0
    attempted_ms: int = 0


class AuthorCache:
    """The hash ``social:author_credibility`` of author to multiplier, only of those under 1.0, and keys beside it.

    ``:state`` is a hash of times, ``:lease`` says who learns. Every method raises StorageUnavailableError.
    """

    def __init__(self, client: redis.asyncio.Redis, key: str = AUTHOR_CREDIBILITY_KEY) -> None:
        self._client = client
        self._key = key
        self._swap = client.register_script(_SWAP)

    async def state(self) -> LearningState:
        """Return where the learning stands."""
        async with answering(KEPT):
            learned, attempted = await self._client.hmget(f"{self._key}:state", ["learned_ms", "attempted_ms"])
        return LearningState(int(learned or 0), int(attempted or 0))

    def lease(self) -> AbstractAsyncContextManager[str | None]:
        """Be the one who learns: yield a token for :meth:`swap`, or None when another one is at it."""
        return lease(self._client, f"{self._key}:lease", KEPT)

    async def attempt(self, now_ms: int) -> None:
        """Note that learning is tried now."""
        async with answering(KEPT):
            await self._client.hset(f"{self._key}:state", "attempted_ms", str(now_ms))

    async def renew(self, token: str) -> None:
        """Have the lease run for its whole time from now, if it is still that token's."""
        async with answering(KEPT):
            if await self._client.get(f"{self._key}:lease") in (token, token.encode()):
                await self._client.pexpire(f"{self._key}:lease", LEASE_MS)

    async def swap(self, token: str, multipliers: Mapping[str, float], *, now_ms: int, ttl_ms: int) -> bool:
        """Put a new hash in the place of the old one, at one moment for everybody; it goes away after ``ttl_ms``.

        Returns False, and does nothing, when the lease has run out.
        """
        new, fields = f"{self._key}:new:{token}", list(multipliers.items())
        async with answering(KEPT):
            for first in range(0, len(fields), FIELDS_AT_ONCE):
                async with self._client.pipeline(transaction=True) as pipeline:
                    part = fields[first : first + FIELDS_AT_ONCE]
                    pipeline.hset(new, mapping={author: f"{multiplier:.4f}" for author, multiplier in part})
                    pipeline.pexpire(new, 2 * LEASE_MS)
                    await pipeline.execute()
            return bool(await self._swap(keys=[self._key], args=[token, now_ms, ttl_ms]))

    async def forget(self, author: str) -> None:
        """Hold nothing against an author."""
        async with answering(KEPT):
            await self._client.hdel(self._key, author)
