"""The tables on a real PostgreSQL, each test in a database of its own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage import AggregateStore, connect
from sentimesh.storage.postgres import migrate

WINDOW = 300_000
START = 1_700_000_400_000 // WINDOW * WINDOW


def window(
    index: int = 0, symbol: str = "BTC", count: int = 5, revision: int = 0, score: float = 0.75
) -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=START + index * WINDOW,
        window_end_ms=START + (index + 1) * WINDOW,
        polarity=-0.5,
        volume_ratio=1.5,
        credibility=0.625,
        social_sentiment_score=score,
        directional_score=0.25,
        post_count=count,
        unique_authors=3,
        platform_breakdown={"reddit": 2, "twitter": 3},
        viral_spike=True,
        spike_ratio=6.5,
        baseline_ready=True,
        revision=revision,
        updated_at_ms=START + (index + 1) * WINDOW + 5000,
    )


async def test_a_window_comes_back_as_it_was_written(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.upsert_windows([window(0), window(1), window(0, "ETH")])
    assert await store.latest(["ETH", "XMR", "BTC"]) == [window(0, "ETH"), None, window(1)]
    assert await store.count_windows() == 3


async def test_writing_again_changes_nothing_and_a_revision_replaces(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    for _ in range(2):
        await store.upsert_windows([window()])
    await store.upsert_windows([window(count=6, revision=1)])
    await store.upsert_windows([window(count=5, revision=0)])
    assert await store.latest(["BTC"]) == [window(count=6, revision=1)]
    assert await store.count_windows() == 1


async def test_the_same_window_again_leaves_the_row_untouched(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.upsert_windows([window(), window(1)])
    versions = await pool.fetch("SELECT xmin::text, updated_at FROM social_sentiment_scores ORDER BY window_start")
    later = window()
    later.updated_at_ms += 60_000
    await store.upsert_windows([later, window(1, score=0.5)])
    again = await pool.fetch("SELECT xmin::text, updated_at FROM social_sentiment_scores ORDER BY window_start")
    assert again[0] == versions[0]
    assert again[1]["xmin"] != versions[1]["xmin"]


async def test_a_restart_that_counts_revisions_from_zero_again_still_adds_posts(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.upsert_windows([window(count=6, revision=2)])
    await store.upsert_windows([window(count=7, revision=0)])
    assert await store.latest(["BTC"]) == [window(count=7, revision=0)]


async def test_a_window_without_a_spike_has_no_ratio(pool: asyncpg.Pool[Any]) -> None:
    quiet = window()
    quiet.viral_spike, quiet.spike_ratio = False, 0
    await AggregateStore(pool).upsert_windows([quiet])
    assert await pool.fetchval("SELECT spike_ratio FROM social_sentiment_scores") is None
    assert await AggregateStore(pool).latest(["BTC", "BTC"]) == [quiet, quiet]


async def test_counts_for_the_baseline_are_those_of_the_span(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.upsert_windows([window(n, count=n) for n in range(5)])
    counts = await store.window_counts(["BTC", "ETH"], START + WINDOW, START + 4 * WINDOW)
    assert counts == [("BTC", START + (n + 1) * WINDOW, n) for n in (1, 2, 3)]


async def test_a_spike_is_stored_once(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    spike = ViralSpike(
        symbol="SOL",
        spike_ratio=8,
        mention_count=40,
        baseline_rate=5,
        detected_at_ms=START,
        dominant_platform="reddit",
    )
    await store.insert_spikes([spike])
    await store.insert_spikes([spike])
    rows = await pool.fetch("SELECT symbol, mention_count, dominant_platform FROM social_viral_spikes")
    assert [tuple(row) for row in rows] == [("SOL", 40, "reddit")]


async def test_migrations_run_once_also_when_replicas_race(postgres_dsn: str) -> None:
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    async with asyncpg.create_pool(postgres_dsn.rsplit("/", 1)[0] + f"/{name}", min_size=2, max_size=4) as pool:
        applied = await asyncio.gather(*(migrate(pool) for _ in range(4)))
        assert sorted(applied, key=len)[:-1] == [[], [], []]
        assert max(applied, key=len) == ["0001_scores_spikes_authors.sql"]
        assert await migrate(pool) == []
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def test_a_server_that_is_away_is_one_clear_error_without_the_password() -> None:
    with pytest.raises(StorageUnavailableError, match=r"storage\.postgresql\.dsn") as refused:
        await connect(SecretStr("postgresql://user:hunter2@127.0.0.1:1/db"))
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
