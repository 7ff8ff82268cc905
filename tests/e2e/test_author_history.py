"""Two filters that run: one of them learns who floods, and both know it without a restart."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from pydantic import SecretStr
from typer.testing import CliRunner

from sentimesh.author_cache import AuthorCache
from sentimesh.build import now_ms
from sentimesh.bus import REJECTED, Bus
from sentimesh.cli.app import app
from sentimesh.pb.pipeline_pb2 import RejectedPost
from sentimesh.settings import Settings
from sentimesh.stack import Stack
from tests.e2e.test_known_bots import sample
from tests.e2e.test_pipeline import ListSource, tweet

AUTHOR = "twitter:1007"


async def sentimesh(*arguments: str) -> str:
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


async def last_reason(bus: Bus) -> str:
    stored = await bus.jetstream.get_last_msg(REJECTED.stream, f"{REJECTED.prefix}.BTC")
    return RejectedPost.FromString(stored.data or b"").reason


async def test_a_flooding_account_becomes_a_known_bot_and_is_cleared(
    settings: Settings, clean: None, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.aggregation.clock = "system"
    for name, url in settings.server_urls().items():
        if url is not None:
            key = {"nats": "NATS__URL", "redis": "STORAGE__REDIS__URL", "postgresql": "STORAGE__POSTGRESQL__DSN"}[name]
            monkeypatch.setenv(f"SENTIMESH__{key}", url.get_secret_value())
    start_ms = now_ms() - 3_600_000
    flood = [tweet(n, "Join the $BTC pump group now", start_ms + n * 60_000, author=7) for n in range(12)]
    people = [tweet(100 + n, f"$BTC: {f'thought{n} ' * 9}", start_ms + n, author=20 + n) for n in range(5)]
    async with (
        Stack(settings, stages=["ingest", "filter"], free_ports=True, allow_embedded=False) as one,
        Stack(settings, stages=["filter"], free_ports=True, allow_embedded=False) as two,
        redis.asyncio.Redis.from_url(redis_url) as client,
        Bus(settings.nats.url or SecretStr("")) as bus,
    ):
        replicas = [one.metrics, two.metrics]

        async def judge(number: int) -> None:
            post = tweet(number, f"$BTC: {f'word{number} ' * 9}", now_ms(), author=7)
            await one.run_source(ListSource([post]))
            await one.drained()

        # One has learned that there is nobody.
        while not any(sample(each, "social_author_learning_last_success_timestamp") for each in replicas):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert sum(sample(each, "social_author_learning_failures_total") for each in replicas) == 0
        await one.run_source(ListSource([*flood, *people]))
        await one.drained()
        assert f"new bot {AUTHOR}: flooding" in await sentimesh("authors", "learn")
        await judge(200)
        assert await last_reason(bus) == "known_bot"
        assert f"{AUTHOR} is cleared" in await sentimesh("authors", "clear", AUTHOR)
        known = sum(sample(each, "social_posts_filtered_total", reason="known_bot") for each in replicas)
        assert known == 1
        await judge(201)
        assert "new bot" not in await sentimesh("authors", "learn")
        await judge(202)
        assert sum(sample(each, "social_posts_filtered_total", reason="known_bot") for each in replicas) == known
        assert (await AuthorCache(client).state()).learned_ms > start_ms
