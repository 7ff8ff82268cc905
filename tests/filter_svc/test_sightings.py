from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filter_svc.outage import Outage
from filter_svc.sightings import (
    AUTHOR_LIMIT,
    HOUR_MS,
    LEAST_AUTHORS,
    TEXT_LIMIT,
    MemorySightings,
    RedisSightings,
    Sighted,
    Sighting,
)
from sentimesh.errors import StorageUnavailableError

NOW_MS = 1_571_500_000_000
COPIES_MS = 4 * HOUR_MS
CHANNEL_MS = 9 * HOUR_MS
TEXT = 0xFFEE_0000_0000_0001


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


def sighting(
    number: int, *, author: str = "twitter:a", at_ms: int = NOW_MS, texts: tuple[int, ...] = (TEXT,)
) -> Sighting:
    return Sighting(f"twitter:{number}", number, at_ms, author, texts)


def oracle(seen: Sequence[Sighting], post: Sighting) -> Sighted:
    """Look at every post that came before; numbers that the stores keep in part are not in it."""
    first: dict[str, Sighting] = {}
    for each in seen:
        first.setdefault(each.post_id, each)
    mine = first.get(post.post_id, post)
    earlier = [each for each in first.values() if each.sequence < mine.sequence and each.post_id != post.post_id]
    copies: list[Sighting] = []
    for text in post.texts:
        of_text = [(each, abs(each.timestamp_ms - post.timestamp_ms)) for each in earlier if text in each.texts]
        copies = max(copies, [each for each, away_ms in of_text if away_ms <= COPIES_MS], key=len)
        if post.is_channel:
            own = [each for each, away_ms in of_text if each.author == post.author and away_ms <= CHANNEL_MS]
            copies = max(copies, own, key=len)
    hour = post.timestamp_ms // HOUR_MS - 1
    crowd = [each for each in first.values() if each.author and each.timestamp_ms // HOUR_MS == hour]
    authors = {each.author for each in crowd}
    return Sighted(
        copies=len(copies),
        copy_authors=len({each.author for each in copies}),
        own_copies=sum(each.author == post.author for each in copies) if post.author else 0,
        author_posts=sum(
            each.author == post.author and abs(each.timestamp_ms - post.timestamp_ms) <= HOUR_MS for each in earlier
        )
        if post.author
        else 0,
        population=len(crowd) / len(authors) if len(authors) >= LEAST_AUTHORS else 0.0,
    )


def is_channel(author: str) -> bool:
    return author == "telegram:-1001"


@st.composite
def streams(draw: st.DrawFn) -> list[list[Sighting]]:
    """Return batches of posts, some of them delivered again, times not in order."""
    posts: list[Sighting] = []
    for number in range(1, draw(st.integers(1, 25)) + 1):
        texts = tuple(draw(st.lists(st.sampled_from([TEXT, TEXT + 1, 7]), max_size=2, unique=True)))
        author = draw(st.sampled_from(["", "twitter:a", "twitter:b", "telegram:-1001"]))
        at_ms = NOW_MS + draw(st.integers(-6 * HOUR_MS, 6 * HOUR_MS))
        # Some posts name two symbols: another number, the same post.
        name = draw(st.integers(max(1, number - 1), number))
        posts.append(Sighting(f"twitter:{name}", number, at_ms, author, texts, is_channel(author)))
    by_id: dict[str, Sighting] = {}
    for at, post in enumerate(posts):
        same = by_id.setdefault(post.post_id, post)
        posts[at] = Sighting(post.post_id, post.sequence, same.timestamp_ms, same.author, same.texts, same.is_channel)
    again = draw(st.lists(st.sampled_from(posts), max_size=5))
    cut = draw(st.integers(0, len(posts)))
    return [batch for batch in (posts[:cut], posts[cut:], again) if batch]


@given(streams())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_memory_and_redis_count_as_a_look_at_every_post_does(
    client: redis.asyncio.Redis, batches: list[list[Sighting]]
) -> None:
    await client.flushdb()
    memory = MemorySightings(COPIES_MS, CHANNEL_MS)
    shared = RedisSightings(client, Outage(), COPIES_MS, CHANNEL_MS)
    seen: list[Sighting] = []
    for batch in batches:
        expected = []
        for post in batch:
            expected.append(oracle(seen, post))
            seen.append(post)
        assert await memory.count(batch) == expected
        assert await shared.count(batch) == expected


async def test_two_replicas_see_each_others_posts_and_one_that_starts_again_all(client: redis.asyncio.Redis) -> None:
    one, other = RedisSightings(client, Outage()), RedisSightings(client, Outage())
    await one.count([sighting(1), sighting(3, author="twitter:b")])
    [second] = await other.count([sighting(2)])
    [fourth] = await RedisSightings(client, Outage()).count([sighting(4)])
    assert (second.copies, second.own_copies, second.author_posts) == (1, 1, 1)
    assert (fourth.copies, fourth.copy_authors, fourth.own_copies, fourth.author_posts) == (3, 2, 2, 2)


async def test_a_post_that_is_only_asked_about_is_not_counted(client: redis.asyncio.Redis) -> None:
    for store in (MemorySightings(), RedisSightings(client, Outage())):
        await store.count([sighting(1)])
        asked = sighting(1 << 52, at_ms=NOW_MS + 1)
        for _ in range(2):
            [found] = await store.count([asked], remember=False)
            assert (found.copies, found.author_posts) == (1, 1)
        [second] = await store.count([sighting(2)])
        assert (second.copies, second.author_posts) == (1, 1)


async def test_the_crowd_of_the_hour_before_says_what_is_usual(client: redis.asyncio.Redis) -> None:
    start_ms = NOW_MS // HOUR_MS * HOUR_MS
    crowd = [
        Sighting(f"twitter:{number}", number, start_ms + number, f"twitter:{number % LEAST_AUTHORS}", ())
        for number in range(1, 3 * LEAST_AUTHORS + 1)
    ]
    late = Sighting("twitter:late", 1000, start_ms + HOUR_MS, "twitter:x", ())
    for store in (MemorySightings(), RedisSightings(client, Outage())):
        assert {found.population for found in await store.count(crowd)} == {0.0}
        [found] = await store.count([late])
        assert found.population == 3.0
        # Delivered again, nothing is counted again.
        await store.count(crowd)
        assert await store.count([late]) == [found]


async def test_what_comes_late_into_the_hour_before_counts_from_then_on_whatever_the_batches(
    client: redis.asyncio.Redis,
) -> None:
    start_ms = NOW_MS // HOUR_MS * HOUR_MS
    before = [Sighting(f"twitter:{n}", n, start_ms + n, f"twitter:{n}", ()) for n in range(1, LEAST_AUTHORS + 1)]
    after = Sighting("twitter:a", 1000, start_ms + HOUR_MS, "twitter:x", ())
    late = [Sighting(f"twitter:l{n}", 1001 + n, start_ms + n, "twitter:1", ()) for n in range(LEAST_AUTHORS)]
    last = Sighting("twitter:z", 2000, start_ms + HOUR_MS, "twitter:y", ())
    posts = [*before, after, *late, last]
    for store in (MemorySightings(), RedisSightings(client, Outage())):
        found = await store.count(posts)
        assert (found[len(before)].population, found[-1].population) == (1.0, 2.0)


async def test_a_flood_costs_no_more_than_its_limits_and_redelivery_changes_no_verdict(
    client: redis.asyncio.Redis,
) -> None:
    posts = [sighting(number, at_ms=NOW_MS + number) for number in range(1, 1001)]
    shared, memory = RedisSightings(client, Outage()), MemorySightings()
    first = await shared.count(posts)
    assert await memory.count(posts) == first
    assert [found.copies for found in first[:TEXT_LIMIT]] == list(range(TEXT_LIMIT))
    assert min(found.copies for found in first[TEXT_LIMIT:]) >= TEXT_LIMIT // 2
    assert min(found.author_posts for found in first[AUTHOR_LIMIT:]) >= AUTHOR_LIMIT // 2
    again = await shared.count(posts)
    assert [min(found.copies, 3) for found in again] == [min(found.copies, 3) for found in first]
    keys = [key async for key in client.scan_iter("social:[cf]*")]
    assert sorted(keys) == [f"social:copies:{TEXT:016x}".encode(), b"social:frequency:twitter:a"]
    lengths = [await client.strlen(key) for key in sorted(keys)]
    assert lengths[0] <= 24 * TEXT_LIMIT
    assert lengths[1] <= 24 * AUTHOR_LIMIT
    for key in keys:
        assert 0 < await client.pttl(key) <= 30 * HOUR_MS


async def test_a_batch_is_one_round_trip_and_a_text_takes_a_key(client: redis.asyncio.Redis) -> None:
    shared = RedisSightings(client, Outage())
    await shared.count([sighting(1)])
    before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await shared.count([sighting(number, texts=(number,)) for number in range(2, 400)])
    assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
    assert await shared.count([]) == []


async def test_redis_away_is_waited_for_then_done_without_and_asked_again() -> None:
    clock = [0.0]
    # Nothing listens on the discard port.
    async with redis.asyncio.Redis(host="127.0.0.1", port=9, socket_connect_timeout=1) as client:
        degraded: list[str] = []
        outage = Outage(30.0, clock=lambda: clock[0], on_degraded=degraded.append)
        shared = RedisSightings(client, outage)
        with pytest.raises(StorageUnavailableError, match="Redis does not answer"):
            await shared.count([sighting(1)])
        clock[0] = 29.0
        with pytest.raises(StorageUnavailableError):
            await shared.count([sighting(1)])
        assert degraded == []
        clock[0] = 31.0
        assert [found.copies for found in await shared.count([sighting(1), sighting(2)])] == [0, 1]
        assert [found.copies for found in await shared.count([sighting(3)])] == [2]
        assert degraded == ["sightings", "sightings"]


async def test_back_again_redis_answers_and_the_stand_in_is_forgotten(client: redis.asyncio.Redis) -> None:
    clock = [0.0]
    outage = Outage(0.0, clock=lambda: clock[0])
    key = uuid.uuid4().int >> 64
    shared = RedisSightings(client, outage)
    await shared.count([sighting(1, texts=(key,))])
    kept = client.connection_pool
    client.connection_pool = redis.asyncio.ConnectionPool(host="127.0.0.1", port=9, socket_connect_timeout=1)
    assert (await shared.count([sighting(2, texts=(key,))]))[0].copies == 0
    client.connection_pool = kept
    clock[0] = 1.0
    # Not asked again yet.
    assert (await shared.count([sighting(3, texts=(key,))]))[0].copies == 1
    clock[0] = 6.0
    assert (await shared.count([sighting(4, texts=(key,))]))[0].copies == 1
