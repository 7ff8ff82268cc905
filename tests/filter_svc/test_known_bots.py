from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from filter_svc.known_bots import MemoryKnownBots, RedisKnownBots
from filter_svc.outage import Outage
from sentimesh.errors import StorageUnavailableError


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_memory_knows_its_list_and_never_an_empty_id() -> None:
    bots = MemoryKnownBots(["b", ""])
    assert await bots.contains(["a", "b", "", "b"]) == [False, True, False, True]


BOTS = ["twitter:7", "8"]
AUTHORS = ["twitter:7", "telegram:7", "reddit:8", "8", "twitter:", "twitter:9", "twitter:7"]


async def test_an_author_is_listed_by_platform_and_id_or_by_the_id_alone(client: redis.asyncio.Redis) -> None:
    await client.delete("test:bots:platforms")
    # The empty member must not make bots of all who have no id.
    await client.sadd("test:bots:platforms", *BOTS, "")
    answers = [True, False, True, True, False, False, True]
    assert await RedisKnownBots(client, key="test:bots:platforms").contains(AUTHORS) == answers
    assert await MemoryKnownBots([*BOTS, ""]).contains(AUTHORS) == answers


async def test_redis_answers_in_order_for_repeated_and_empty_ids(client: redis.asyncio.Redis) -> None:
    await client.delete("test:bots:order")
    await client.sadd("test:bots:order", "7", "9", "")
    bots = RedisKnownBots(client, key="test:bots:order")
    assert await bots.contains(["7", "8", "9", "7", ""]) == [True, False, True, True, False]
    assert await bots.contains([]) == []
    assert await bots.contains([""]) == [False]


async def test_a_missing_set_has_no_bots_and_a_new_member_counts_at_once(client: redis.asyncio.Redis) -> None:
    await client.delete("test:bots:new")
    bots = RedisKnownBots(client, key="test:bots:new")
    assert await bots.contains(["7"]) == [False]
    await client.sadd("test:bots:new", "7")
    assert await bots.contains(["7"]) == [True]


async def test_a_key_that_is_no_set_says_so(client: redis.asyncio.Redis) -> None:
    await client.set("test:bots:wrong", "x")
    with pytest.raises(StorageUnavailableError, match="test:bots:wrong"):
        await RedisKnownBots(client, key="test:bots:wrong").contains(["7"])


async def test_a_batch_is_one_command(client: redis.asyncio.Redis) -> None:
    bots = RedisKnownBots(client, key="test:bots:one")
    await bots.contains(["twitter:1"])
    before = (await client.info("commandstats")).get("cmdstat_smismember", {}).get("calls", 0)
    await bots.contains([f"twitter:{number}" for number in range(500)])
    assert (await client.info("commandstats"))["cmdstat_smismember"]["calls"] == before + 1


async def test_redis_away_is_waited_for_and_then_those_met_before_are_known(client: redis.asyncio.Redis) -> None:
    await client.delete("test:bots:away")
    await client.sadd("test:bots:away", "7", "8")
    clock = [0.0]
    bots = RedisKnownBots(client, Outage(30.0, clock=lambda: clock[0]), "test:bots:away")
    assert await bots.contains(["7", "8", "9"]) == [True, True, False]
    await client.srem("test:bots:away", "8")
    assert await bots.contains(["8"]) == [False]
    pool = client.connection_pool
    # Nothing listens on the discard port.
    client.connection_pool = redis.asyncio.ConnectionPool(host="127.0.0.1", port=9, socket_connect_timeout=1)
    with pytest.raises(StorageUnavailableError, match="Redis does not answer"):
        await bots.contains(["7"])
    clock[0] = 31.0
    assert await bots.contains(["7", "8", "9"]) == [True, False, False]
    await client.connection_pool.aclose()
    client.connection_pool = pool
    clock[0] = 40.0
    await client.sadd("test:bots:away", "9")
    assert await bots.contains(["9"]) == [True]
