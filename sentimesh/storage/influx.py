"""The time series on InfluxDB 2, in the specification's measurements, a bucket for each retention."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import influxdb_client
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.rest import ApiException

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate

DAY_SECONDS = 86_400
NANOSECONDS = 1_000_000  # in a millisecond
# Answers that say something about the points, not about the server: malformed, too large, out of retention.
REFUSALS = (400, 413, 422)


class InfluxTimeSeries:
    """Points in three buckets: ``{bucket}_posts``, ``{bucket}`` for windows, ``{bucket}_spikes`` (SPEC-NOTES 9).

    A point is known by its tags and time, so writing again changes nothing. To keep posts of the same moment apart,
    what their platform does not say of the time (below a millisecond, or below a second) comes from the post's id.
    """

    def __init__(
        self,
        client: InfluxDBClientAsync,
        *,
        org: str,
        bucket: str = "social_sentiment",
        posts_retention_days: int = 7,
        windows_retention_days: int = 90,
        spikes_retention_days: int = 365,
    ) -> None:
        """``org``: name of the organisation; the retentions are the specification's."""
        self._client = client
        self._org = org
        self._posts, self._windows, self._spikes = f"{bucket}_posts", bucket, f"{bucket}_spikes"
        self._retention_days = {
            self._posts: posts_retention_days,
            self._windows: windows_retention_days,
            self._spikes: spikes_retention_days,
        }

    async def ensure_buckets(self) -> None:
        """Make the buckets that are missing and bring the retention of the others to what is configured."""
        api: Any = influxdb_client  # its generated part has no annotations
        buckets = api.BucketsService(self._client.api_client)
        async with _available():
            found = await api.OrganizationsService(self._client.api_client).get_orgs_async(org=self._org)
            known = {b.name: b for b in (await buckets.get_buckets_async(org=self._org, limit=100)).buckets}
            for name, days in self._retention_days.items():
                rules = [api.BucketRetentionRules(type="expire", every_seconds=days * DAY_SECONDS)]
                if name not in known:
                    request = api.PostBucketRequest(org_id=found.orgs[0].id, name=name, retention_rules=rules)
                    await buckets.post_buckets_async(request)
                elif [rule.every_seconds for rule in known[name].retention_rules] != [days * DAY_SECONDS]:
                    known[name].retention_rules = rules
                    await buckets.patch_buckets_id_async(known[name].id, known[name])

    async def write_scored(self, posts: Sequence[ScoredPost]) -> None:
        """Write points of ``scored_posts``."""
        await self._write(self._posts, [scored_point(post) for post in posts])

    async def write_windows(self, aggregates: Sequence[SentimentAggregate]) -> None:
        """Write points of ``sentiment_aggregate``; a revision takes the place of the one before."""
        await self._write(self._windows, [window_point(aggregate) for aggregate in aggregates])

    async def write_spikes(self, spikes: Sequence[ViralSpike]) -> None:
        """Write points of ``viral_spikes``."""
        await self._write(self._spikes, [spike_point(spike) for spike in spikes])

    async def _write(self, bucket: str, points: list[dict[str, Any]]) -> None:
        if points:
            async with _available():
                await self._client.write_api().write(bucket, self._org, points)


def scored_point(scored: ScoredPost) -> dict[str, Any]:
    """Return a scored post as a point: no text, no author."""
    post = scored.post
    unknown = NANOSECONDS if post.timestamp_ms % 1000 else 1000 * NANOSECONDS
    return {
        "measurement": "scored_posts",
        "tags": {"symbol": post.symbol, "platform": post.platform, "model_version": scored.model_version},
        "fields": {
            "polarity": scored.polarity,
            "confidence": scored.confidence,
            "credibility_score": scored.credibility_score,
            "engagement_weight": scored.engagement_weight,
        },
        "time": post.timestamp_ms * NANOSECONDS + zlib.crc32(post.post_id.encode()) % unknown,
    }


def window_point(aggregate: SentimentAggregate) -> dict[str, Any]:
    """Return a closed window as a point at its end."""
    return {
        "measurement": "sentiment_aggregate",
        "tags": {"symbol": aggregate.symbol},
        "fields": {
            "polarity": aggregate.polarity,
            "volume_ratio": aggregate.volume_ratio,
            "credibility": aggregate.credibility,
            "social_sentiment_score": aggregate.social_sentiment_score,
            "directional_score": aggregate.directional_score,
            "post_count": aggregate.post_count,
            "unique_authors": aggregate.unique_authors,
            "viral_spike": aggregate.viral_spike,
        },
        "time": aggregate.window_end_ms * NANOSECONDS,
    }


def spike_point(spike: ViralSpike) -> dict[str, Any]:
    """Return a spike as a point at the end of the window that showed it."""
    return {
        "measurement": "viral_spikes",
        "tags": {"symbol": spike.symbol},
        "fields": {
            "spike_ratio": spike.spike_ratio,
            "mention_count": spike.mention_count,
            "baseline_rate": spike.baseline_rate,
        },
        "time": spike.detected_at_ms * NANOSECONDS,
    }


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status in REFUSALS:
            raise StorageRefusedError(f"InfluxDB refuses points (HTTP {error.status} {error.reason})") from error
        raise StorageUnavailableError(
            f"InfluxDB does not do its work (HTTP {error.status} {error.reason}): "
            "check its organisation, token and buckets under storage.influxdb"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise StorageUnavailableError(
            f"InfluxDB does not answer ({type(error).__name__}): check that the server of storage.influxdb runs"
        ) from error
