"""Everything that holds post text lets go of it within seven days: streams, tables, keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from nats.js.api import StreamState
from pydantic import SecretStr

from sentimesh.bus import TOPIC_OF, TOPICS, Bus, Topic
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate, SocialPost
from sentimesh.settings import load_settings
from sentimesh.storage import AggregateStore, SentimentCache
from sentimesh.storage.postgres import utc
from sentimesh.storage.retention import BATCH, purge_expired

DETECTED = 1_700_000_000_000
HOUR = 3_600_000
WEEK = 7 * 24 * HOUR


def spike(index: int = 0, *, at: int = DETECTED) -> ViralSpike:
    samples = [
        SamplePost(
            post_id=f"twitter:{index}-{number}",
            platform="twitter",
            text=f"post {number}",
            source_url=f"https://x.com/i/{number}",
            engagement=SocialPost.EngagementMetrics(likes=number, views=9),
            engagement_weight=2.5,
            polarity=0.5,
            timestamp_ms=at - number * 1000,
        )
        for number in range(5)
    ]
    return ViralSpike(
        symbol="BTC",
        spike_ratio=6,
        mention_count=60,
        baseline_rate=10,
        detected_at_ms=at + index,
        dominant_platform="twitter",
        sample_posts=samples,
    )


def emptied(spike: ViralSpike) -> ViralSpike:
    for post in spike.sample_posts:
        post.text = ""
    return spike


async def kept(store: AggregateStore) -> list[ViralSpike]:
    return await store.spikes(["BTC"], DETECTED - WEEK, DETECTED + WEEK, 1000)


async def test_texts_of_spikes_go_and_everything_else_stays(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    young = spike(at=DETECTED + 24 * HOUR)
    await store.write_spikes([spike(), young])
    assert await purge_expired(pool, DETECTED + WEEK - 3 * HOUR) == 0
    assert await kept(store) == [young, spike()]
    # The run of an hour later might fail, and the one after it would come too late.
    assert await purge_expired(pool, DETECTED + WEEK - 2 * HOUR) == 5
    assert await kept(store) == [young, emptied(spike())]
    assert await purge_expired(pool, DETECTED + WEEK) == 0
    # The end of a spike, or the same detection again, brings nothing back.
    await store.write_spikes([spike()])
    over = spike()
    over.resolved_at_ms = DETECTED + HOUR
    await store.write_spikes([over])
    assert await kept(store) == [young, emptied(over)]
    assert await purge_expired(pool, DETECTED + WEEK + 24 * HOUR) == 5
    assert await pool.fetchval("SELECT count(*) FROM social_viral_spikes WHERE sample_posts::text LIKE '%post %'") == 0


async def test_processes_that_purge_at_once_share_the_work(pool: asyncpg.Pool[Any]) -> None:
    count = 3 * BATCH + 1
    await AggregateStore(pool).write_spikes([spike(n) for n in range(count)])
    done = await asyncio.gather(*(purge_expired(pool, DETECTED + WEEK) for _ in range(4)))
    assert sum(done) == 5 * count
    assert await purge_expired(pool, DETECTED + WEEK) == 0


async def test_spikes_without_samples_and_partly_empty_ones_are_no_obstacle(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    bare, part = spike(), spike(1)
    bare.ClearField("sample_posts")
    part.sample_posts[0].text = ""
    await store.write_spikes([bare, part])
    await pool.execute(
        "INSERT INTO social_viral_spikes (symbol, spike_ratio, mention_count, baseline_rate, detected_at) "
        "VALUES ('BTC', 5, 10, 2, to_timestamp(1))"
    )
    assert await purge_expired(pool, DETECTED + WEEK) == 4
    assert await kept(store) == [emptied(part), bare]


async def test_what_another_transaction_holds_is_left_for_the_next_run(pool: asyncpg.Pool[Any]) -> None:
    await AggregateStore(pool).write_spikes([spike(), spike(1)])
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE social_viral_spikes SET price_impact_pct = 1 WHERE detected_at = $1", utc(DETECTED)
        )
        assert await purge_expired(pool, DETECTED + WEEK) == 5
    assert await purge_expired(pool, DETECTED + WEEK) == 5


async def test_the_purge_says_that_postgresql_is_away(pool: asyncpg.Pool[Any]) -> None:
    await pool.close()
    with pytest.raises(StorageUnavailableError, match=r"storage\.postgresql\.dsn"):
        await purge_expired(pool, DETECTED)


async def test_scores_have_no_end(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_windows([SentimentAggregate(symbol="BTC", window_start_ms=1, window_end_ms=300_001)])
    await purge_expired(pool, DETECTED + 100 * WEEK)
    assert await store.count_windows() == 1


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(SecretStr(nats_url), retention_hours=load_settings(None).kafka.retention_hours) as bus:
        yield bus


async def state(bus: Bus, topic: Topic) -> StreamState:
    return (await bus.jetstream.stream_info(topic.stream)).state


async def test_every_stream_is_created_to_forget_within_a_week(bus: Bus) -> None:
    # Every stream, whether what it holds has text today or not.
    assert {topic.stream for topic in TOPICS} == {topic.stream for topic in TOPIC_OF.values()}
    for topic in TOPICS:
        config = (await bus.jetstream.stream_info(topic.stream)).config
        assert config.max_age is not None
        assert 0 < config.max_age <= WEEK / 1000, topic.stream


async def test_messages_older_than_that_are_gone(bus: Bus) -> None:
    try:
        for topic in TOPICS:
            config = (await bus.jetstream.stream_info(topic.stream)).config
            await bus.jetstream.publish(f"{topic.prefix}.BTC", b"text")
            assert (await state(bus, topic)).messages > 0
            # Ids need not be remembered longer than messages.
            await bus.jetstream.update_stream(config.evolve(max_age=1, duplicate_window=1))
        for topic in TOPICS:
            while (await state(bus, topic)).messages:  # noqa: ASYNC110 (the broker is asked)
                await asyncio.sleep(0.05)
            assert (await state(bus, topic)).bytes == 0
    finally:
        await bus.ensure_streams()


async def test_keys_in_redis_live_as_long_as_the_specification_says(redis_url: str) -> None:
    options = load_settings(None).storage.redis
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        cache = SentimentCache(
            client,
            key_prefix="retention-test:",
            score_ttl_seconds=options.score_ttl_seconds,
            baseline_ttl_seconds=options.volume_baseline_ttl_seconds,
        )
        await cache.put_live([SentimentAggregate(symbol="BTC")])
        await cache.put_windows([SentimentAggregate(symbol="BTC")])
        await cache.put_baselines({"BTC": 1.5})
        for kind, minutes in (("sentiment", 10), ("window", 10), ("volume_baseline", 8 * 24 * 60)):
            left = await client.pttl(f"retention-test:{kind}:BTC")
            # An hour would be the wrong unit; a slow machine takes seconds.
            assert minutes * 60_000 * 0.5 < left <= minutes * 60_000
        assert len(await client.keys("retention-test:*")) == 3
        await client.delete(*await client.keys("retention-test:*"))
