"""The Redis cache on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import redis.asyncio

from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage import SentimentCache


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


def aggregate(symbol: str = "BTC", *, live: bool = True) -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=1_700_000_100_000,
        window_end_ms=1_700_000_400_000,
        polarity=0.25,
        social_sentiment_score=0.75,
        post_count=7,
        platform_breakdown={"twitter": 7},
        live=live,
    )


async def stored(client: redis.asyncio.Redis, key: str) -> Any:
    value = await client.get(key)
    assert value is not None
    return orjson.loads(value)


async def test_live_scores_are_json_with_the_contracts_names_and_a_time_to_live(client: redis.asyncio.Redis) -> None:
    cache = SentimentCache(client)
    await cache.put_live([aggregate(), aggregate("ETH")])
    value = await stored(client, "social:sentiment:BTC")
    assert value["social_sentiment_score"] == 0.75
    assert value["viral_spike"] is False
    assert 0 < await client.ttl("social:sentiment:BTC") <= 600
    assert await cache.get(["ETH", "XMR", "BTC"]) == [aggregate("ETH"), None, aggregate()]


async def test_nothing_asked_or_given_is_nothing_done(client: redis.asyncio.Redis) -> None:
    cache = SentimentCache(client)
    await cache.put_live([])
    await cache.put_baselines({})
    assert await cache.get([]) == []
    assert await client.dbsize() == 0


async def test_windows_and_baselines_have_keys_of_their_own(client: redis.asyncio.Redis) -> None:
    cache = SentimentCache(client)
    await cache.put_windows([aggregate(live=False)])
    await cache.put_baselines({"BTC": 12.5})
    assert (await stored(client, "social:window:BTC"))["post_count"] == 7
    assert await stored(client, "social:volume_baseline:BTC") == {"avg_5min_count": 12.5}
    assert 600_000 < await client.ttl("social:volume_baseline:BTC") <= 691_200
    assert await cache.get(["BTC"]) == [None]


@pytest.mark.parametrize("value", [b"not json", b"\xff\xfe", b"[]", b'{"symbol": 3}'])
async def test_what_is_not_readable_says_what_to_do(client: redis.asyncio.Redis, value: bytes) -> None:
    await client.set("social:sentiment:BTC", value)
    with pytest.raises(StorageUnavailableError, match="delete the keys"):
        await SentimentCache(client).get(["BTC"])


async def test_a_server_that_is_away_is_one_clear_error() -> None:
    async with redis.asyncio.Redis.from_url("redis://127.0.0.1:1") as client:
        cache = SentimentCache(client)
        with pytest.raises(StorageUnavailableError, match=r"storage\.redis\.url"):
            await cache.get(["BTC"])
        with pytest.raises(StorageUnavailableError, match=r"storage\.redis\.url"):
            await cache.put_live([aggregate()])
