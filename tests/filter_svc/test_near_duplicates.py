"""The shared table against a scan over everything, and what becomes of it when Redis goes away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import redis.asyncio as redis
from hypothesis import example, given
from hypothesis import strategies as st

from filter_svc.near_duplicates import (
    HELD_POSTS,
    MemoryNearDuplicates,
    NearDuplicates,
    Original,
    RedisNearDuplicates,
    Seen,
)
from filter_svc.outage import Outage
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import StorageUnavailableError

TTL = 9_600
CELL = TTL // 32
AT = TTL * 177_083_333
FINGERPRINT = 0x0123_4567_89AB_CDEF
OTHER = 0xF0F0_F0F0_F0F0_F0F0


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


async def originals(index: NearDuplicates, *posts: Seen) -> list[int | None]:
    """Return the fingerprints of the originals."""
    return [original and original.fingerprint for original in await index.originals(posts)]


async def test_a_copy_names_the_first_of_its_kind(index: NearDuplicates) -> None:
    near = flipped(FINGERPRINT, 0, 31, 63)
    posts = [
        seen(1, "a"),
        seen(2, "b", near),
        seen(3, "c", flipped(FINGERPRINT, 5, 20, 40, 60)),
        seen(4, "d", ~FINGERPRINT & (1 << 64) - 1),
    ]
    assert await index.originals(posts) == [None, Original(FINGERPRINT), None, None]
    assert await originals(index, seen(5, "e", near, after_ms=TTL)) == [FINGERPRINT]
    assert await index.originals([]) == []


async def test_other_symbols_and_redeliveries_are_the_same_post(index: NearDuplicates) -> None:
    batch = [seen(1, "a"), seen(2, "a"), seen(3, "b"), seen(4, "a"), seen(5, "b")]
    answers = [None, None, FINGERPRINT, None, FINGERPRINT]
    assert await originals(index, *batch) == answers
    assert await originals(index, *batch) == answers
    assert [await originals(index, post) for post in reversed(batch)] == [[answer] for answer in reversed(answers)]


async def test_a_text_is_new_again_after_its_time(index: NearDuplicates) -> None:
    near = flipped(FINGERPRINT, 1)
    assert await originals(index, seen(1, "a")) == [None]
    assert await originals(index, seen(2, "b", near, after_ms=TTL)) == [FINGERPRINT]
    assert await originals(index, seen(3, "c", after_ms=TTL + 1)) == [near]
    assert await originals(index, seen(4, "d", after_ms=3 * TTL)) == [None]


async def test_two_replicas_see_each_others_posts_and_so_does_one_that_starts(client: redis.Redis) -> None:
    one, two = RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)
    assert await originals(one, seen(1, "a")) == [None]
    assert await originals(two, seen(2, "b", flipped(FINGERPRINT, 9)), seen(3, "c", 0)) == [FINGERPRINT, None]
    assert await originals(one, seen(4, "d", 7)) == [0]
    started = RedisNearDuplicates(client, 3, TTL)
    # Delivered again after the one that had them died.
    again = [seen(1, "a"), seen(4, "d", 7), seen(5, "e", flipped(FINGERPRINT, 8))]
    assert await originals(started, *again) == [None, 0, FINGERPRINT]


async def test_of_two_that_come_to_two_replicas_at_once_one_is_a_copy(client: redis.Redis) -> None:
    one, two = RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)
    early, late = seen(1, "a"), seen(2, "b", flipped(FINGERPRINT, 9), after_ms=1)
    # What is later in the stream came first.
    assert await originals(two, late) == [None]
    assert await originals(one, early) == [late.fingerprint]
    for index in (one, two, RedisNearDuplicates(client, 3, TTL)):
        assert await originals(index, replace(early, sequence=3), late) == [late.fingerprint, None]


class Scan:
    """All posts in the order in which they came first."""

    def __init__(self, max_distance: int, arrived: Sequence[Seen]) -> None:
        self.max_distance = max_distance
        first: dict[str, Seen] = {}
        for post in arrived:
            first.setdefault(post.post_id, post)
        self.posts = list(first.values())
        self.places = {post_id: place for place, post_id in enumerate(first)}

    def original(self, asked: Seen) -> int | None:
        post = self.posts[self.places[asked.post_id]]
        same = [other for other in self._before(post) if _cell(other) == _cell(post)]
        post = same[1] if len(same) >= 2 else post
        counts = Counter[tuple[int, int]]()
        for other in self._before(post):
            counts[_cell(other)] += 1
            if (
                counts[_cell(other)] <= 2
                and (other.fingerprint ^ post.fingerprint).bit_count() <= self.max_distance
                and abs(other.timestamp_ms - post.timestamp_ms) <= TTL
            ):
                return other.fingerprint
        return None

    def _before(self, post: Seen) -> list[Seen]:
        return self.posts[: self.places[post.post_id]]


def _cell(post: Seen) -> tuple[int, int]:
    return post.fingerprint, post.timestamp_ms // CELL


@st.composite
def crowds(draw: st.DrawFn) -> list[Seen]:
    """Posts of a few near fingerprints, in the order of the stream; some come for several symbols."""
    near = st.lists(st.integers(0, 63), max_size=6).map(lambda bits: flipped(FINGERPRINT, *bits))
    texts = st.sampled_from(draw(st.lists(near, min_size=1, max_size=6)))
    made = draw(st.lists(st.tuples(texts, st.integers(0, 3 * TTL)), min_size=1, max_size=12))
    order = draw(st.lists(st.integers(0, len(made) - 1), max_size=25))
    return [Seen(str(number), made[number][0], at, AT + made[number][1]) for at, number in enumerate(order, 1)]


@example(
    [Seen(str(at), FINGERPRINT, at + 1, AT + gap) for at, gap in enumerate([0, 0, 3 * TTL, 40 * TTL])],
    0,
    random.Random(0),
)
@given(crowds(), st.integers(0, 7), st.integers(0, 999).map(random.Random))
async def test_equals_a_scan_however_posts_come(
    redis_url: str, posts: list[Seen], max_distance: int, chance: random.Random
) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        for come in (posts, chance.sample(posts, len(posts))):
            await client.flushdb()
            replicas = [RedisNearDuplicates(client, max_distance, TTL) for _ in range(2)]
            arrived: list[Seen] = []
            answers: dict[int, int | None] = {}
            for at in range(0, len(come), 3):
                batch = come[at : at + 3]
                arrived += sorted(batch, key=lambda post: post.sequence)
                found = await originals(chance.choice(replicas), *batch)
                scan = Scan(max_distance, arrived)
                assert found == [scan.original(post) for post in batch]
                answers |= {post.sequence: answer for post, answer in zip(batch, found, strict=True)}
            for index in (*replicas, RedisNearDuplicates(client, max_distance, TTL)):
                again = chance.sample(posts, len(posts))
                assert await originals(index, *again) == [answers[post.sequence] for post in again]


async def bytes_held(client: redis.Redis) -> int:
    return sum([await client.strlen(key) for key in await client.keys("social:simhash:0:*")])


async def test_a_flood_of_one_text_is_held_in_a_few_entries(client: redis.Redis) -> None:
    replicas = [RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)]
    flood = [seen(n, str(n), after_ms=n * 2) for n in range(1, 4_001)]
    answers: list[int | None] = []
    for at in range(0, len(flood), 50):
        answers += await originals(replicas[at // 50 % 2], *flood[at : at + 50])
    assert answers == [None] + [FINGERPRINT] * 3_999
    # Two of each cell, of each replica, and what came in the batch with which one of them learned of it.
    assert await bytes_held(client) <= 2 * 3 * (8_000 // CELL + 1) * (10 + 28)
    # Found by what stands for the last of them, two for each cell.
    later = seen(5_000, "later", flipped(FINGERPRINT, 3), after_ms=8_000 + TTL - CELL)
    assert await originals(replicas[0], later) == [FINGERPRINT]
    assert await originals(replicas[0], seen(6_000, "new", after_ms=8_000 + 3 * TTL)) == [None]


async def test_what_is_over_goes(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    for hour in range(20):
        await originals(index, seen(hour, str(hour), after_ms=hour * TTL))
    slots = [AT // TTL + hour for hour in range(20)]
    buckets = [f"social:simhash:0:c:{slot}" for slot in slots]
    assert [await client.exists(bucket) for bucket in buckets] == [0] * 12 + [1] * 8


async def test_redis_keys_are_named_and_end(redis_url: str, client: redis.Redis) -> None:
    await RedisNearDuplicates(client, 3, TTL).originals([seen(1, "a"), seen(2, "b", flipped(FINGERPRINT, 15))])
    async with redis.Redis.from_url(redis_url, decode_responses=True) as reader:
        keys = set(await reader.keys())
    [written] = {key for key in keys if "written" in str(key)}
    slot = AT // TTL
    assert keys - {written, "social:simhash:arrivals"} == {
        f"social:simhash:0:c:{slot}",
        f"social:simhash:0:4:{slot}",
        f"social:simhash:1:8:{slot}",
        f"social:simhash:2:4:{slot}",
        f"social:simhash:3:0:{slot}",
    }
    assert all([await client.pttl(key) > TTL for key in keys - {"social:simhash:arrivals"}])


async def test_what_redis_lost_is_written_again_before_it_answers(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    await index.originals([seen(1, "a")])
    await client.flushdb()
    assert await originals(index, seen(2, "b", flipped(FINGERPRINT, 7)), seen(3, "c", OTHER)) == [FINGERPRINT, None]
    state = {key: await client.dump(key) for key in await client.keys()}
    await index.originals([seen(4, "d", 0xFFFF)])
    # As from a copy that is one batch behind.
    await client.flushdb()
    for key, value in state.items():
        assert value is not None
        await client.restore(key, 0, value)
    asked = [seen(5, "e"), seen(6, "f", 0xFFFE), seen(7, "g", flipped(OTHER, 1))]
    assert await originals(index, *asked) == [FINGERPRINT, 0xFFFF, OTHER]
    started = RedisNearDuplicates(client, 3, TTL)
    assert await originals(started, *asked) == [FINGERPRINT, 0xFFFF, OTHER]


async def test_a_bucket_that_went_is_read_from_its_beginning(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL)
    await index.originals([seen(1, "a")])
    for key in await client.keys("social:simhash:[0-3]:*"):
        await client.unlink(key)
    posts = [seen(2, "b"), seen(3, "c", flipped(FINGERPRINT, 0), after_ms=CELL), seen(4, "d", after_ms=2 * CELL)]
    assert await originals(RedisNearDuplicates(client, 3, TTL), *posts) == [None, FINGERPRINT, FINGERPRINT]
    assert await originals(index, seen(5, "e", flipped(FINGERPRINT, 0, 1, 2, 3))) == [flipped(FINGERPRINT, 0)]


async def test_another_replica_reads_what_was_written_again(client: redis.Redis) -> None:
    one, two = RedisNearDuplicates(client, 3, TTL), RedisNearDuplicates(client, 3, TTL)
    await one.originals([seen(1, "a"), seen(2, "b", OTHER)])
    assert await originals(two, seen(3, "c", flipped(OTHER, 1))) == [OTHER]
    await client.flushdb()
    assert await originals(one, seen(4, "d", 0xFFFF)) == [None]
    assert await originals(two, seen(5, "e", 0xFFFE)) == [0xFFFF]
    assert await originals(two, seen(6, "f", flipped(FINGERPRINT, 1))) == [FINGERPRINT]


async def test_what_can_be_written_again_is_bounded(client: redis.Redis) -> None:
    index = RedisNearDuplicates(client, 3, TTL, held_posts=2)
    for number in (1, 2, 3):
        await index.originals([seen(number, str(number), 0xFFFF << 20 * (number - 1))])
    await client.flushdb()
    posts = [seen(number + 3, f"again {number}", 0xFFFF << 20 * (number - 1)) for number in (1, 2, 3)]
    assert [original is not None for original in await index.originals(posts)] == [True] * 3
    started = RedisNearDuplicates(client, 3, TTL)
    asked = [replace(post, sequence=0, timestamp_ms=AT - CELL) for post in posts]
    assert await originals(started, *asked) == [None, 0xFFFF << 20, 0xFFFF << 40]
    assert HELD_POSTS == 600_000


async def test_an_outage_is_waited_for_then_this_process_answers_and_later_catches_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, now, degraded = tmp_path_factory.mktemp("redis"), [0.0], list[int]()
    async with EmbeddedServers(folder / "first", nats=False, postgres=False) as server:
        url = server.redis_url
        client = redis.Redis.from_url(url, retry=None)
        index = RedisNearDuplicates(client, 3, TTL, Outage(clock=lambda: now[0]), on_degraded=degraded.append)
        others = RedisNearDuplicates(client, 3, TTL)
        assert await originals(others, seen(1, "theirs", 0), seen(2, "unread", OTHER)) == [None, None]
        assert await originals(index, seen(3, "ours"), seen(4, "b", 1)) == [None, 0]
    batch = [seen(5, "c", flipped(FINGERPRINT, 2)), seen(6, "d", 3), seen(7, "e", 0xFFFF), seen(8, "f", OTHER)]
    for at in (100.0, 129.0):
        now[0] = at
        with pytest.raises(StorageUnavailableError, match="Redis does not answer"):
            await index.originals(batch)
    assert degraded == []
    now[0] = 130.0
    # What others wrote is known as far as it was read.
    answers = [FINGERPRINT, 0, None, None]
    assert await originals(index, *batch) == answers
    assert degraded == [4]
    now[0] = 131.0
    assert await originals(index, seen(9, "g", 0xFFFE)) == [0xFFFF]
    assert degraded == [4, 1]

    # It comes back with nothing, and is not asked before it is time.
    port = int(url.rpartition(":")[2].partition("/")[0])
    async with EmbeddedServers(folder / "second", nats=False, postgres=False, ports={"valkey": port}):
        assert await originals(index, seen(10, "h", 0xFFFC)) == [0xFFFF]
        assert degraded == [4, 1, 1]
        now[0] = 136.0
        assert await originals(index, seen(11, "i", 0xFFF0)) == [0xFFFE]
        started = RedisNearDuplicates(client, 3, TTL)
        asked = [seen(12, "j", flipped(FINGERPRINT, 1)), seen(13, "k", 0xFFFF), seen(14, "l", 3)]
        assert await originals(started, *asked) == [FINGERPRINT, 0xFFFF, 1]
        assert await originals(started, *batch) == [FINGERPRINT, 1, None, None]
        assert degraded == [4, 1, 1]
        await client.aclose()
