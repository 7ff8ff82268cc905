"""The shared index against a scan over everything, and what becomes of it when Redis goes away."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import redis.asyncio as redis
from hypothesis import given
from hypothesis import strategies as st

from filter_svc.near_duplicates import (
    HELD_POSTS,
    MemoryNearDuplicates,
    NearDuplicates,
    Original,
    RedisNearDuplicates,
    Seen,
)
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import StorageUnavailableError

TTL = 9_600
CELL = TTL // 32
AT = 1_700_000_000_000
FINGERPRINT = 0x0123_4567_89AB_CDEF


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def index(request: pytest.FixtureRequest, client: redis.Redis) -> NearDuplicates:
    return MemoryNearDuplicates(3, TTL) if request.param == "memory" else RedisNearDuplicates(client, 3, TTL)


def seen(sequence: int, post_id: str, fingerprint: int = FINGERPRINT, after_ms: int = 0) -> Seen:
    return Seen(post_id, fingerprint, sequence, AT + after_ms)


def flipped(fingerprint: int, *bits: int) -> int:
    for bit in bits:
        fingerprint ^= 1 << bit
    return fingerprint


async def named(index: NearDuplicates, posts: Sequence[Seen]) -> list[str | None]:
    """Return the ids of the originals."""
    return [original and original.post_id for original in await index.originals(posts)]


async def test_a_copy_names_the_first_of_its_kind(index: NearDuplicates) -> None:
    posts = [
        seen(1, "a"),
        seen(2, "b", flipped(FINGERPRINT, 0, 31, 63)),
        seen(3, "c", flipped(FINGERPRINT, 5, 20, 40, 60)),
        seen(4, "d", ~FINGERPRINT & (1 << 64) - 1),
    ]
    assert await named(index, posts) == [None, "a", None, None]
    assert await named(index, [seen(5, "e", after_ms=TTL)]) == ["a"]
    assert await index.originals([seen(6, "f")]) == [Original("a", FINGERPRINT)]
    assert await index.originals([seen(7, "g", flipped(FINGERPRINT, 1))]) == [Original("a", FINGERPRINT)]
    assert await index.originals([]) == []


async def test_other_symbols_and_redeliveries_are_the_same_post(index: NearDuplicates) -> None:
    batch = [seen(1, "a"), seen(2, "a"), seen(3, "b"), seen(4, "a"), seen(5, "b")]
    answers = [None, None, "a", None, "a"]
    assert await named(index, batch) == answers
    assert await named(index, batch) == answers
    assert [await named(index, [post]) for post in reversed(batch)] == [[answer] for answer in reversed(answers)]


async def test_a_text_is_new_again_after_its_time(index: NearDuplicates) -> None:
    assert await named(index, [seen(1, "a")]) == [None]
    assert await named(index, [seen(2, "b", after_ms=TTL)]) == ["a"]
    assert await named(index, [seen(3, "c", after_ms=TTL + 1)]) == ["b"]
    assert await named(index, [seen(4, "d", after_ms=3 * TTL)]) == [None]


async def test_two_replicas_see_each_others_posts_and_so_does_one_that_starts(client: redis.Redis) -> None:
    one, two = RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)
    assert await named(one, [seen(1, "a")]) == [None]
    assert await named(two, [seen(2, "b", flipped(FINGERPRINT, 9)), seen(3, "c", 0)]) == ["a", None]
    assert await named(one, [seen(4, "d", 7)]) == ["c"]
    started = RedisNearDuplicates(client, 3, TTL)
    # Delivered again after the one that had them died.
    assert await named(started, [seen(1, "a"), seen(4, "d", 7), seen(5, "e")]) == [None, "c", "a"]


class Scan:
    """All posts there are; of one fingerprint the first two of each cell."""

    def __init__(self, max_distance: int, posts: Sequence[Seen]) -> None:
        self.max_distance = max_distance
        first: dict[str, Seen] = {}
        for post in sorted(posts, key=lambda p: p.sequence):
            first.setdefault(post.post_id, post)
        self.first = {post_id: post.sequence for post_id, post in first.items()}
        cells: dict[tuple[int, int], list[Seen]] = defaultdict(list)
        for post in first.values():
            cells[post.fingerprint, post.timestamp_ms // CELL].append(post)
        self.kept = [post for cell in cells.values() for post in cell[:2]]

    def original(self, post: Seen) -> str | None:
        found = [
            other
            for other in self.kept
            if other.sequence < self.first[post.post_id]
            and other.post_id != post.post_id
            and (other.fingerprint ^ post.fingerprint).bit_count() <= self.max_distance
            and abs(other.timestamp_ms - post.timestamp_ms) <= TTL
        ]
        return min(found, key=lambda p: p.sequence).post_id if found else None


@st.composite
def crowds(draw: st.DrawFn) -> list[Seen]:
    """Posts of a few near fingerprints, in the order of the stream; some come for several symbols."""
    near = st.lists(st.integers(0, 63), max_size=6).map(lambda bits: flipped(FINGERPRINT, *bits))
    made = draw(st.lists(st.tuples(near, st.integers(0, TTL + TTL // 8)), min_size=1, max_size=10))
    order = draw(st.lists(st.integers(0, len(made) - 1), max_size=25))
    return [Seen(str(number), made[number][0], at, AT + made[number][1]) for at, number in enumerate(order, 1)]


@given(crowds(), st.integers(0, 7), st.integers(0, 999).map(random.Random))
async def test_equals_a_scan_in_order_and_however_posts_come_again(
    redis_url: str, posts: list[Seen], max_distance: int, chance: random.Random
) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        await client.flushdb()
        replicas = [RedisNearDuplicates(client, max_distance, TTL) for _ in range(2)]
        answers: list[str | None] = []
        for at in range(0, len(posts), 3):
            answers += await named(chance.choice(replicas), posts[at : at + 3])
        assert answers == [Scan(max_distance, posts[: at + 1]).original(post) for at, post in enumerate(posts)]
        shuffled = chance.sample(posts, len(posts))
        assert await named(chance.choice(replicas), shuffled) == [answers[post.sequence - 1] for post in shuffled]

        # What has been written does not depend on the order either.
        await client.flushdb()
        shuffled = chance.sample(posts, len(posts))
        for at in range(0, len(posts), 3):
            await named(RedisNearDuplicates(client, max_distance, TTL), shuffled[at : at + 3])
        assert await named(RedisNearDuplicates(client, max_distance, TTL), posts) == answers


async def test_a_flood_of_one_text_is_held_in_a_few_entries(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    flood = [seen(n, str(n), after_ms=n * 2) for n in range(1, 4_001)]
    answers = [answer for at in range(0, len(flood), 500) for answer in await named(index, flood[at : at + 500])]
    assert answers == [None] + ["1"] * 3_999
    assert await client.strlen(f"social:simhash:{FINGERPRINT:016x}") < 2 * (8_000 // CELL + 2) * 24
    # Found by what stands for the last of them, two for each cell.
    [later] = await named(index, [seen(5_000, "later", after_ms=8_000 + TTL - CELL)])
    assert later is not None
    assert await named(index, [seen(6_000, "new", after_ms=8_000 + 3 * TTL)]) == [None]


async def test_what_is_over_leaves_a_bucket_that_is_in_use(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    # Different in the upper half alone: all in the same two buckets of the lower half.
    posts = [seen(n, str(n), n << 32 | 0xBEEF, after_ms=n * TTL // 10) for n in range(1, 101)]
    for post in posts:
        await named(index, [post])
    assert await client.zcard("social:simhash:0:000000000000beef") <= 12 + 8


async def test_redis_keys_are_named_and_end(redis_url: str, client: redis.Redis) -> None:
    await named(RedisNearDuplicates(client, 3, TTL), [seen(1, "a"), seen(2, "b", flipped(FINGERPRINT, 0))])
    async with redis.Redis.from_url(redis_url, decode_responses=True) as reader:
        keys = set(await reader.keys())
    [written] = {key for key in keys if "written" in str(key)}
    assert keys - {written} == {
        "social:simhash:0:000000000000cdef",
        "social:simhash:0:000000000000cdee",
        "social:simhash:1:0000000089ab0000",
        "social:simhash:2:0000456700000000",
        "social:simhash:3:0123000000000000",
        "social:simhash:0123456789abcdef",
        "social:simhash:0123456789abcdee",
    }
    assert all([await client.pttl(key) > TTL for key in keys])


async def test_what_redis_lost_is_written_again_before_it_answers(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    await named(index, [seen(1, "a")])
    await client.flushdb()
    assert await named(index, [seen(2, "b"), seen(3, "c", 0)]) == ["a", None]
    state = {key: await client.dump(key) for key in await client.keys()}
    await named(index, [seen(4, "d", 0xFFFF)])
    # As from a copy that is one batch behind.
    await client.flushdb()
    for key, value in state.items():
        assert value is not None
        await client.restore(key, 0, value)
    assert await named(index, [seen(5, "e"), seen(6, "f", 0xFFFE), seen(7, "g", 1)]) == ["a", "d", "c"]


async def test_what_can_be_written_again_is_bounded(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL, held_posts=2)
    for number in (1, 2, 3):
        await named(index, [seen(number, str(number), 0xFFFF << 20 * (number - 1))])
    await client.flushdb()
    posts = [seen(number + 3, f"again {number}", 0xFFFF << 20 * (number - 1)) for number in (1, 2, 3)]
    assert await named(index, posts) == [None, "2", "3"]
    assert HELD_POSTS == 600_000


async def test_an_outage_is_waited_for_then_this_process_answers_and_later_catches_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, now, degraded = tmp_path_factory.mktemp("redis"), [0.0], list[int]()
    async with EmbeddedServers(folder / "first", nats=False, postgres=False) as server:
        url = server.redis_url
        client = redis.Redis.from_url(url, retry=None)
        index = RedisNearDuplicates(client, 3, TTL, on_degraded=degraded.append, clock=lambda: now[0])
        assert await named(RedisNearDuplicates(client, 3, TTL), [seen(1, "theirs", 0)]) == [None]
        assert await named(index, [seen(2, "ours"), seen(3, "b", 1)]) == [None, "theirs"]
    batch = [seen(4, "c"), seen(5, "d", 3), seen(6, "e", 0xFFFF)]
    for at in (100.0, 129.0):
        now[0] = at
        with pytest.raises(StorageUnavailableError, match="Redis does not answer"):
            await named(index, batch)
    assert degraded == []
    now[0] = 130.0
    # "theirs" was never seen here; "b" was.
    assert await named(index, batch) == ["ours", "b", None]
    assert degraded == [3]
    now[0] = 131.0
    assert await named(index, [seen(7, "f", 0xFFFE)]) == ["e"]
    assert degraded == [3, 1]

    # It comes back with nothing, and is not asked before it is time.
    port = int(url.rpartition(":")[2].partition("/")[0])
    async with EmbeddedServers(folder / "second", nats=False, postgres=False, ports={"valkey": port}):
        assert await named(index, [seen(8, "g", 0xFFFC)]) == ["e"]
        assert degraded == [3, 1, 1]
        now[0] = 136.0
        assert await named(index, [seen(9, "h", 0xFFFF)]) == ["e"]
        other = RedisNearDuplicates(client, 3, TTL)
        assert await named(other, [seen(10, "i"), seen(11, "j", 0xFFFF), seen(12, "k", 1)]) == ["ours", "e", "b"]
        assert degraded == [3, 1, 1]
        await client.aclose()


async def test_posts_come_in_any_order_from_two_replicas(client: redis.Redis) -> None:
    one, two = RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)
    early, late = seen(1, "a"), seen(2, "b", after_ms=1)
    # Nobody knows of the earlier one yet.
    assert await named(two, [late]) == [None]
    assert await named(one, [early]) == [None]
    assert await named(two, [late, replace(early, sequence=3)]) == ["a", None]
