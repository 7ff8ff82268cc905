"""The list of known bots: a set of author ids that the filter asks about and others fill."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import redis.asyncio
import redis.exceptions

from sentimesh.errors import StorageUnavailableError

# The specification's key, section "Redis Key Structure".
KNOWN_BOTS_KEY = "social:known_bots"


class KnownBots(Protocol):
    """Who is known to be a bot."""

    async def contains(self, author_ids: Sequence[str]) -> list[bool]:
        """Say of each author whether it is a known bot, in order; an empty id never is."""
        ...


class MemoryKnownBots:
    """A fixed list, for a filter without Redis."""

    def __init__(self, author_ids: Collection[str] = ()) -> None:
        self._author_ids = frozenset(author_ids) - {""}

    async def contains(self, author_ids: Sequence[str]) -> list[bool]:
        """Say of each author whether it is on the list."""
        return [author_id in self._author_ids for author_id in author_ids]


class RedisKnownBots:
    """The Redis set that all filter replicas share; one round trip a call."""

    def __init__(self, client: redis.asyncio.Redis, key: str = KNOWN_BOTS_KEY) -> None:
        self._client = client
        self._key = key

    async def contains(self, author_ids: Sequence[str]) -> list[bool]:
        """Say of each author whether it is in the set.

        Raises StorageUnavailableError when Redis does not answer or the key is no set.
        """
        asked = sorted(set(author_ids) - {""})
        if not asked:
            return [False] * len(author_ids)
        try:
            answers = await self._client.smismember(self._key, asked)
        except redis.exceptions.RedisError as error:
            raise StorageUnavailableError(
                f"Redis cannot say who is a known bot (set {self._key}): {error}; "
                "check that it runs at storage.redis.url and that the key is a set"
            ) from error
        bots = {author_id for author_id, is_bot in zip(asked, answers, strict=True) if is_bot}
        return [author_id in bots for author_id in author_ids]
