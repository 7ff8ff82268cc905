"""The gateway's readers on a real Valkey and a real PostgreSQL."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from pydantic import SecretStr

from gateway_svc.reader import SentimentReader
from sentimesh.pb.gateway_pb2 import SentimentSource
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore, connect

NOW = 1_700_000_400_000
WINDOW_MS = 300_000
PREFIX = "gateway-test:"


def window(symbol: str, *, ends_ago: int, score: float, live: bool = False) -> SentimentAggregate:
    end = NOW - ends_ago
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=end - WINDOW_MS,
        window_end_ms=end,
        social_sentiment_score=score,
        directional_score=0.4,
        polarity=-0.25,
        volume_ratio=1.5,
        credibility=0.75,
        post_count=12,
        unique_authors=9,
        platform_breakdown={"twitter": 8, "reddit": 4},
        live=live,
        updated_at_ms=end,
    )


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    async for key in client.scan_iter(f"{PREFIX}*"):
        await client.delete(key)
    await client.aclose()


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    administration = await asyncpg.connect(postgres_dsn)
    await administration.execute("CREATE DATABASE gateway_test")
    base, _, query = postgres_dsn.partition("?")
    dsn = f"{base.rsplit('/', 1)[0]}/gateway_test" + (f"?{query}" if query else "")
    pool = await connect(SecretStr(dsn))
    yield pool
    await pool.close()
    await administration.execute("DROP DATABASE gateway_test")
    await administration.close()


def reader(client: redis.asyncio.Redis, pool: asyncpg.Pool[Any]) -> SentimentReader:
    return SentimentReader(
        SentimentCache(client, key_prefix=PREFIX), AggregateStore(pool), now_ms=lambda: NOW, read_timeout_seconds=30
    )


async def test_each_symbol_is_answered_by_whoever_knows_it(
    valkey: redis.asyncio.Redis, pool: asyncpg.Pool[Any]
) -> None:
    live = window("BTC", ends_ago=2000, score=0.81, live=True)
    await SentimentCache(valkey, key_prefix=PREFIX).put_live([live])
    closed = [window("ETH", ends_ago=700_000, score=0.9), window("ETH", ends_ago=400_000, score=0.31)]
    old = window("SOL", ends_ago=16 * 60_000, score=0.99)
    await AggregateStore(pool).write_windows([*closed, old])

    btc, eth, sol, ada = await reader(valkey, pool).read(["BTC", "ETH", "SOL", "ADA"])

    assert (btc.source, btc.age_ms) == (SentimentSource.SENTIMENT_SOURCE_REDIS, 2000)
    assert btc.aggregate == live
    assert (eth.source, eth.age_ms) == (SentimentSource.SENTIMENT_SOURCE_POSTGRESQL, 400_000)
    assert eth.social_sentiment_score == pytest.approx(0.31)
    assert eth.aggregate == closed[1]
    assert (sol.data_available, sol.social_sentiment_score, sol.aggregate.symbol) == (False, 0.5, "SOL")
    assert "16 minutes old" in sol.detail
    assert (ada.data_available, ada.HasField("aggregate")) == (False, False)


async def test_without_redis_postgresql_answers_and_without_both_the_default(pool: asyncpg.Pool[Any]) -> None:
    await AggregateStore(pool).write_windows([window("BTC", ends_ago=1000, score=0.7)])
    with socket.socket() as taken:
        # Bound and not listening: connections are refused, and nothing else can take the port meanwhile.
        taken.bind(("127.0.0.1", 0))
        nobody = redis.asyncio.Redis(host="127.0.0.1", port=taken.getsockname()[1])
        [answer] = await reader(nobody, pool).read(["BTC"])
        assert (answer.source, answer.data_available) == (SentimentSource.SENTIMENT_SOURCE_POSTGRESQL, True)

        await pool.close()
        [answer] = await reader(nobody, pool).read(["BTC"])
        assert (answer.social_sentiment_score, answer.data_available) == (0.5, False)
        assert answer.detail == "no score of BTC is known; no answer from Redis and PostgreSQL"
        await nobody.aclose()
