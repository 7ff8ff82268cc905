"""The list of known bots: a set of authors that the filter asks about and others fill."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import redis.asyncio
import redis.exceptions

from filter_svc.outage import Outage
from sentimesh.errors import StorageUnavailableError

# The specification's key, section "Redis Key Structure".
KNOWN_BOTS_KEY = "social:known_bots"


class KnownBots(Protocol):
    """Who is known to be a bot."""

    async def contains(self, authors: Sequence[str]) -> list[bool]:
        """Say of each author ``{platform}:{author_id}`` whether it is a known bot, in order.

        A list may name an author so, or by the id alone, which then is a bot on every platform. An author
        without an id never is one.
        """
        ...


def members(author: str) -> list[str]:
    """Return the names under which an author may be listed: with its platform and without; none without an id."""
    _, has_platform, author_id = author.partition(":")
    if not has_platform:
        return [author] if author else []
    return [author, author_id] if author_id else []


class MemoryKnownBots:
    """A list that somebody else keeps, for a filter without Redis."""

    def __init__(self, bots: Collection[str] = ()) -> None:
        self._bots = bots

    async def contains(self, authors: Sequence[str]) -> list[bool]:
        """Say of each author whether it is on the list."""
        return [any(member in self._bots for member in members(author)) for author in authors]


class RedisKnownBots:
    """The Redis set that all filter replicas share; one round trip a call.

    While Redis is away, and once that has been waited for, the bots are those that this process has met.
    """

    def __init__(self, client: redis.asyncio.Redis, outage: Outage | None = None, key: str = KNOWN_BOTS_KEY) -> None:
        self._client = client
        self._outage = outage or Outage()
        self._key = key
        self._met: set[str] = set()

    async def contains(self, authors: Sequence[str]) -> list[bool]:
        """Say of each author whether it is in the set.

        Raises StorageUnavailableError when Redis does not answer or the key is no set.
        """
        asked = sorted({member for author in authors for member in members(author)})
        if not asked:
            return [False] * len(authors)

        async def ask() -> set[str]:
            try:
                answers = await self._client.smismember(self._key, asked)
            except redis.exceptions.ResponseError as error:
                raise StorageUnavailableError(
                    f"Redis cannot say who is a known bot (set {self._key}): {error}; check that the key is a set"
                ) from error
            bots = {member for member, is_bot in zip(asked, answers, strict=True) if is_bot}
            self._met -= set(asked) - bots
            self._met |= bots
            return bots

        bots = await self._outage.ask("known_bots", ask, lambda: self._met)
        return [not bots.isdisjoint(members(author)) for author in authors]
