"""Two aggregators that share the symbols, one removed and added back, and one that takes over from both."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from sentimesh.bus import SCORED, Bus
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.settings import Settings
from sentimesh.stack import Stack

MINUTE = 60_000
START = 1_700_000_400_000 // (5 * MINUTE) * 5 * MINUTE
SYMBOLS = ("BTC", "ETH", "SOL", "XRP")


def scored(number: int, symbol: str, at_ms: int) -> ScoredPost:
    post = SocialPost(
        post_id=f"twitter:{number}",
        platform="twitter",
        symbol=symbol,
        author_id=str(number % 17),
        timestamp_ms=at_ms,
        received_at_ms=at_ms,
    )
    polarity = (number * 37 % 200 - 100) / 100
    return ScoredPost(post=post, polarity=polarity, credibility_score=0.8, engagement_weight=1 + number % 5)


def hour(number: int) -> list[ScoredPost]:
    """A post a minute and symbol, and a surge of each symbol in its own ten minutes."""
    first = START + number * 60 * MINUTE
    counter = itertools.count(number * 10_000)
    posts = [scored(next(counter), symbol, first + m * MINUTE) for m in range(60) for symbol in SYMBOLS]
    surges = [
        scored(next(counter), symbol, first + (15 + 10 * place) * MINUTE + n * 500)
        for place, symbol in enumerate(SYMBOLS)
        for n in range(60)
    ]
    return sorted([*posts, *surges], key=lambda p: (p.post.timestamp_ms, p.post.post_id))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.symbols = list(SYMBOLS)
    return settings


def replica(settings: Settings, index: int, count: int) -> contextlib.AbstractAsyncContextManager[Stack]:
    settings = settings.model_copy(deep=True)
    settings.aggregation = settings.aggregation.model_copy(update={"replica_index": index, "replica_count": count})
    return Stack(settings, stages=["aggregator"], allow_embedded=False, free_ports=True)


async def send(bus: Bus, posts: Sequence[ScoredPost]) -> None:
    await bus.publish_confirmed(
        [(f"social.scored.{p.post.symbol}", p, f"{p.post.post_id}/{p.post.symbol}/scorer", {}) for p in posts]
    )


async def rows(dsn: str) -> tuple[list[Any], list[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        windows = await connection.fetch(
            "SELECT symbol, window_start, polarity, volume_ratio, credibility, social_sentiment_score, post_count, "
            "unique_authors, viral_spike, spike_ratio, baseline_ready FROM social_sentiment_scores ORDER BY 1, 2"
        )
        spikes = await connection.fetch(
            "SELECT symbol, detected_at, spike_ratio, mention_count, sample_posts, resolved_at "
            "FROM social_viral_spikes ORDER BY 1, 2"
        )
    finally:
        await connection.close()
    return [tuple(row) for row in windows], [tuple(row) for row in spikes]


@pytest.fixture
async def bus(settings: Settings, clean: None) -> AsyncIterator[Bus]:
    async with Bus(settings.nats.url or SecretStr("")) as bus:
        yield bus


async def alone(settings: Settings, bus: Bus, dsn: str) -> tuple[list[Any], list[Any]]:
    """What one aggregator makes of all four hours."""
    async with replica(settings, 0, 1) as stack:
        for number in range(4):
            await send(bus, hour(number))
        await stack.finish()
    return await rows(dsn)


async def test_removing_and_adding_replicas_changes_no_row(
    settings: Settings, bus: Bus, postgres_dsn: str, clean: None
) -> None:
    async with contextlib.AsyncExitStack() as staying:
        first = await staying.enter_async_context(replica(settings, 0, 2))
        async with replica(settings, 1, 2) as second:
            await send(bus, hour(0))
            await first.drained()
            await second.drained()
        # The second is gone: its symbols wait, those of the first go on.
        await send(bus, hour(1))
        await first.drained()
        waiting = await bus.lag(SCORED, "aggregator-1-of-2")
        assert 0 < waiting < len(hour(1))
        async with replica(settings, 1, 2) as second:
            await send(bus, hour(2))
            await first.drained()
            await second.drained()
    # One takes over from both.
    async with replica(settings, 0, 1) as last:
        await send(bus, hour(3))
        await last.finish()
    shared = await rows(postgres_dsn)
    spiked = {spike[0] for spike in shared[1]}
    assert spiked == set(SYMBOLS)
    assert sum(window[6] for window in shared[0]) == 4 * len(hour(0))

    async with asyncpg.create_pool(postgres_dsn) as pool:
        await pool.execute("TRUNCATE social_sentiment_scores, social_viral_spikes")
    for stream in await bus.jetstream.streams_info():
        await bus.jetstream.delete_stream(str(stream.config.name))
    await bus.ensure_streams()
    assert await alone(settings, bus, postgres_dsn) == shared
