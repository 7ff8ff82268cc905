from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis
from hypothesis import given
from hypothesis import strategies as st

from ingest_svc.claims import Claim, Claims, Holders, MemoryClaims, Owner, RedisClaims
from sentimesh.errors import StorageUnavailableError

POST_AGE, COPY_AGE = 10_000, 1_000


@pytest.fixture(params=["memory", "redis"])
async def claims(request: pytest.FixtureRequest) -> AsyncIterator[Claims]:
    if request.param == "memory":
        yield MemoryClaims(POST_AGE, COPY_AGE)
        return
    client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    await client.flushdb()
    yield RedisClaims(client, POST_AGE, COPY_AGE)
    await client.aclose()


def claim(sequence: int, post_id: str, text: str | None = None, platform: str = "twitter", at: int = 5_000) -> Claim:
    return Claim(Owner(sequence, platform, at), post_id, text)


async def test_the_first_of_a_batch_gets_the_claim(claims: Claims) -> None:
    first, second = claim(1, "twitter:1", "h"), claim(2, "twitter:1", "h")
    assert await claims.claim([first, second]) == [
        Holders(first.claimant, first.claimant),
        Holders(first.claimant, None),
    ]


async def test_a_redelivered_message_gets_the_same_answer(claims: Claims) -> None:
    batch = [claim(1, "twitter:1", "h"), claim(2, "reddit:2", "h", "reddit"), claim(3, "twitter:1")]
    answers = await claims.claim(batch)
    assert [answer.post.sequence for answer in answers] == [1, 2, 1]
    assert answers[1].text == batch[0].claimant
    assert await claims.claim(batch) == answers
    assert await claims.claim(batch[1:]) == answers[1:]


async def test_who_loses_the_post_claims_no_text(claims: Claims) -> None:
    await claims.claim([claim(1, "twitter:1"), claim(2, "twitter:1", "h")])
    [answer] = await claims.claim([claim(3, "reddit:1", "h", "reddit")])
    assert answer.text == Owner(3, "reddit", 5_000)


async def test_age_is_judged_by_event_time(claims: Claims) -> None:
    await claims.claim([claim(1, "twitter:1", "h", at=5_000)])
    [within] = await claims.claim([claim(2, "reddit:2", "h", "reddit", at=5_000 + COPY_AGE)])
    assert within.text == Owner(1, "twitter", 5_000)
    [older] = await claims.claim([claim(3, "discord:3", "h", "discord", at=5_000 + COPY_AGE + 1)])
    assert older.text == Owner(3, "discord", 6_001)
    [again] = await claims.claim([claim(4, "twitter:1", at=5_000 + POST_AGE + 1)])
    assert again.post.sequence == 4


async def test_nothing_asked_nothing_answered(claims: Claims) -> None:
    assert await claims.claim([]) == []


async def test_memory_is_bounded() -> None:
    claims = MemoryClaims(POST_AGE, COPY_AGE, limit=2)
    await claims.claim([claim(number, f"twitter:{number}") for number in (1, 2, 3)])
    answers = await claims.claim([claim(8, "twitter:3"), claim(9, "twitter:1")])
    assert [answer.post.sequence for answer in answers] == [3, 9]


async def test_redis_keys_are_named_and_end(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    await client.flushdb()
    await RedisClaims(client, POST_AGE, COPY_AGE).claim([claim(7, "telegram:1/2", "ab12", "telegram")])
    assert sorted(await client.keys()) == ["social:claim:post:telegram:1/2", "social:claim:text:ab12"]
    assert await client.get("social:claim:text:ab12") == "7|telegram|5000"
    assert 0 < await client.pttl("social:claim:post:telegram:1/2") <= POST_AGE
    await client.aclose()


async def test_a_redis_that_is_away_is_said_to_be() -> None:
    client = redis.Redis(host="127.0.0.1", port=1)
    with pytest.raises(StorageUnavailableError, match="Redis does not answer"):
        await RedisClaims(client).claim([claim(1, "twitter:1")])
    await client.aclose()


requests = st.builds(
    claim,
    sequence=st.integers(1, 6),
    post_id=st.sampled_from(["a", "b", "c"]),
    text=st.sampled_from([None, "x", "y"]),
    platform=st.sampled_from(["twitter", "reddit"]),
    at=st.integers(1, 30_000),
)


@given(st.lists(st.lists(requests, max_size=5), max_size=5))
async def test_redis_answers_as_memory_does(redis_url: str, batches: list[list[Claim]]) -> None:
    client = redis.Redis.from_url(redis_url)
    await client.flushdb()
    shared, own = RedisClaims(client, POST_AGE, COPY_AGE), MemoryClaims(POST_AGE, COPY_AGE)
    for batch in batches:
        assert await shared.claim(batch) == await own.claim(batch)
    await client.aclose()
