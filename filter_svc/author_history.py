"""What was learned of authors from their last days: the filter asks, a daily job fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import redis.asyncio

from filter_svc.outage import Outage

# Hash of author `{platform}:{author_id}` to multiplier, only of those that something is held against.
AUTHOR_CREDIBILITY_KEY = "social:author_credibility"


class AuthorHistory(Protocol):
    """What is held against authors."""

    async def multipliers(self, authors: Sequence[str]) -> list[float]:
        """Return what each author's posts are multiplied by, 0.0 to 1.0; 1.0 where nothing is held against it."""
        ...


class MemoryAuthorHistory:
    """Multipliers that somebody else keeps, for a filter without Redis."""

    def __init__(self, multipliers: Mapping[str, float] | None = None) -> None:
        self._multipliers = {} if multipliers is None else multipliers

    async def multipliers(self, authors: Sequence[str]) -> list[float]:
        """Return each author's."""
        return [self._multipliers.get(author, 1.0) for author in authors]


class RedisAuthorHistory:
    """The hash that all filter replicas share; one round trip a call.

    While Redis is away, and once that has been waited for, nothing is held against anybody.
    """

    def __init__(self, client: redis.asyncio.Redis, outage: Outage | None = None) -> None:
        self._client = client
        self._outage = outage or Outage()

    async def multipliers(self, authors: Sequence[str]) -> list[float]:
        """Return each author's. Raises StorageUnavailableError."""
        asked = sorted({author for author in authors if author})
        if not asked:
            return [1.0] * len(authors)

        async def ask() -> dict[str, float]:
            answers = await self._client.hmget(AUTHOR_CREDIBILITY_KEY, asked)
            return {author: float(answer) for author, answer in zip(asked, answers, strict=True) if answer is not None}

        def stand_in() -> dict[str, float]:
            return {}

        found = await self._outage.ask("author_history", ask, stand_in)
        return [found.get(author, 1.0) for author in authors]
