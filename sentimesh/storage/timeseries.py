"""Scored posts, windows and spikes over time: a port with two back ends, this one on PostgreSQL.

The other is :mod:`sentimesh.storage.influx`; nothing but the composition knows which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import asyncpg

from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate
from sentimesh.storage.postgres import available, utc

DAY_MS = 86_400_000
EXPIRE_EVERY_MS = 3_600_000

_UPSERT_POST = """
INSERT INTO social_scored_posts AS known
    (symbol, post_id, platform, model_version, polarity, confidence, credibility_score, engagement_weight, posted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (symbol, post_id) DO UPDATE SET
    model_version = EXCLUDED.model_version, polarity = EXCLUDED.polarity, confidence = EXCLUDED.confidence,
    credibility_score = EXCLUDED.credibility_score, engagement_weight = EXCLUDED.engagement_weight
WHERE (known.model_version, known.polarity, known.confidence, known.credibility_score, known.engagement_weight)
    IS DISTINCT FROM (EXCLUDED.model_version, EXCLUDED.polarity, EXCLUDED.confidence, EXCLUDED.credibility_score,
                      EXCLUDED.engagement_weight)
"""


class TimeSeries(Protocol):
    """Where points over time go. Every write may be repeated.

    Each raises StorageUnavailableError when the back end is away and StorageRefusedError when it does not take
    a point.
    """

    async def write_scored(self, posts: Sequence[ScoredPost]) -> None:
        """Write scored posts, without text or author, at the time each was written."""

    async def write_windows(self, aggregates: Sequence[SentimentAggregate]) -> None:
        """Write closed windows, at their ends."""

    async def write_spikes(self, spikes: Sequence[ViralSpike]) -> None:
        """Write spikes, at the time each was detected."""


class PostgresTimeSeries:
    """Scored posts in ``social_scored_posts``; windows and spikes have tables of their own already.

    Posts older than ``retention_days`` are deleted, about once an hour by ``now_ms``, in the course of writing.
    """

    def __init__(self, pool: asyncpg.Pool[Any], *, now_ms: Callable[[], int], retention_days: int = 7) -> None:
        """``now_ms``: epoch milliseconds, for the retention (SPEC-NOTES 9) only."""
        self._pool = pool
        self._now_ms = now_ms
        self._retention_ms = retention_days * DAY_MS
        self._expired_ms: int | None = None

    async def write_scored(self, posts: Sequence[ScoredPost]) -> None:
        """Write scored posts, one row a (symbol, post_id); scored anew, a post has its newest score."""
        if posts:
            async with available():
                await self._pool.executemany(_UPSERT_POST, [_row(post) for post in posts])
        now_ms = self._now_ms()
        if self._expired_ms is None or now_ms >= self._expired_ms + EXPIRE_EVERY_MS:
            async with available():
                await self._pool.execute(
                    "DELETE FROM social_scored_posts WHERE posted_at < $1", utc(now_ms - self._retention_ms)
                )
            self._expired_ms = now_ms

    async def write_windows(self, aggregates: Sequence[SentimentAggregate]) -> None:
        """Do nothing: they are in ``social_sentiment_scores``."""

    async def write_spikes(self, spikes: Sequence[ViralSpike]) -> None:
        """Do nothing: they are in ``social_viral_spikes``."""


def _row(scored: ScoredPost) -> tuple[Any, ...]:
    post = scored.post
    return (
        post.symbol,
        post.post_id,
        post.platform,
        scored.model_version,
        scored.polarity,
        scored.confidence,
        scored.credibility_score,
        scored.engagement_weight,
        utc(post.timestamp_ms),
    )
