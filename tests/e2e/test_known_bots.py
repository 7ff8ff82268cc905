"""Two filters on one Redis: a listed account gets nothing through either of them once the list is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import redis.asyncio

from filter_svc.known_bots import RedisKnownBots
from sentimesh.build import now_ms
from sentimesh.settings import Settings
from sentimesh.stack import Stack
from sentimesh.telemetry import Metrics
from tests.e2e.test_pipeline import ListSource, tweet


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_two_filters_reject_every_post_of_a_listed_account(
    settings: Settings, clean: None, redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "bots.txt"
    path.write_text("twitter:1001\nreddit:1002\n1003\n")
    settings.spam_filter.known_bot_sources = [str(path), str(tmp_path / "absent.txt")]
    texts = [f"$BTC post {number}: " + f"word{number} " * 12 for number in range(120)]
    start_ms = now_ms()
    posts = [tweet(number, text, start_ms + number, author=number % 6) for number, text in enumerate(texts)]
    # Small batches, so that both get some.
    settings.nats.batch_size = 5
    async with (
        Stack(settings, stages=["ingest", "filter"], free_ports=True, allow_embedded=False) as one,
        Stack(settings, stages=["filter"], free_ports=True, allow_embedded=False) as two,
        redis.asyncio.Redis.from_url(redis_url) as client,
    ):
        replicas = [one.metrics, two.metrics]
        while not all(sample(each, "social_known_bots_count") == 3 for each in replicas):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await RedisKnownBots(client).contains(["twitter:1001", "twitter:1002", "twitter:1003"]) == [
            True,
            False,
            True,
        ]
        # One of them refreshed for both; the list that is not there was told of.
        failures = [sample(each, "social_known_bot_refresh_failures_total", source="file") for each in replicas]
        assert sum(failures) == 1
        await one.run_source(ListSource(posts))
        await one.drained()
        rejected = [sample(each, "social_posts_filtered_total", reason="known_bot") for each in replicas]
    # All posts of the two accounts of six that are listed here, and no other.
    assert sum(rejected) == 40
