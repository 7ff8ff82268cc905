"""What the pipeline makes of a crowd whose every post is labelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import redis.asyncio

from filter_svc.author_history import AUTHOR_CREDIBILITY_KEY
from ingest_svc.sources.simulator import Campaign, SimulatedPost, Spike, listed_bots, persistent_bots, simulate
from sentimesh.bot_store import BotStore
from sentimesh.build import now_ms
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.settings import Settings
from sentimesh.source import SourcePost
from tests.e2e.conftest import System

MINUTE = 60_000
# Why the filter rejects; ingest has reasons of its own, and people repost.
REJECTED = {"duplicate", "low_credibility", "flooding", "post_frequency", "new_account"}


class Crowd:
    """A source of simulated posts as fast as they are taken."""

    name = "crowd"

    def __init__(self, posts: list[SimulatedPost]) -> None:
        self._posts = posts

    async def posts(self) -> AsyncIterator[SourcePost]:
        for post in self._posts:
            raw = RawPost(
                platform=post.platform, payload=orjson.dumps(post.payload), received_at_ms=now_ms(), source=self.name
            )
            yield SourcePost(raw, f"{self.name}/{post.post_id}", post.event_time_ms)


async def test_the_spike_is_alerted_and_copies_and_new_bots_are_dropped_while_people_pass(
    settings: Settings, system: System
) -> None:
    start_ms = now_ms() - 40 * MINUTE
    posts = list(
        simulate(
            5,
            start_ms,
            settings.symbols,
            posts_per_minute=30,
            duration_ms=38 * MINUTE,
            spikes=[Spike("DOGE", start_ms + 30 * MINUTE)],
            campaigns=[Campaign("ADA", start_ms + 15 * MINUTE)],
        )
    )
    await system.stack.run_source(Crowd(posts))
    await system.stack.finish()

    assert system.ledger.received == len(posts)
    assert system.ledger.accounted == len(posts)
    [spike] = [spike for spike in system.ledger.spikes if spike.symbol == "DOGE"]
    first = min(post.event_time_ms for post in posts if post.label == "spike")
    assert first < spike.detected_at_ms <= first + MINUTE

    everybody = Counter(post.label for post in posts)
    rejected = Counter(post.label for post in posts if system.ledger.reason(post.post_id) in REJECTED)
    new = [post for post in posts if post.kind == "throwaway"]
    assert sum(system.ledger.reason(post.post_id) in REJECTED for post in new) > 0.5 * len(new)
    assert rejected["campaign"] > 0.7 * everybody["campaign"]
    assert rejected["human"] < 0.02 * everybody["human"]
    assert rejected["spike"] < 0.06 * everybody["spike"]


async def test_every_reason_tells_what_it_is_for(settings: Settings, system: System, redis_url: str) -> None:
    """Those that are listed and learned of are known before; the daily job has tests of its own."""
    rate, start_ms = 120, now_ms() - 40 * MINUTE
    learned = system.stack.metrics.author_learning_success
    while not next(iter(learned.collect())).samples[0].value:  # noqa: ASYNC110 (a gauge is asked)
        # What is learned at the start, nothing here, takes the place of what is held against authors.
        await asyncio.sleep(0.1)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await BotStore(client).add(listed_bots())
        await client.hset(AUTHOR_CREDIBILITY_KEY, mapping=dict.fromkeys(persistent_bots(rate), 0.3))
    posts = list(
        simulate(
            6,
            start_ms,
            settings.symbols,
            posts_per_minute=rate,
            duration_ms=38 * MINUTE,
            spikes=[],
            campaigns=[Campaign("ADA", start_ms + 15 * MINUTE, kind="aged_campaign")],
        )
    )
    await system.stack.run_source(Crowd(posts))
    await system.stack.finish()

    reasons = {kind: Counter[str | None]() for kind in {post.kind for post in posts}}
    for post in posts:
        reasons[post.kind][system.ledger.reason(post.post_id)] += 1
    reached = {kind: sum(found.values()) - found["no_symbol"] for kind, found in reasons.items()}
    assert reasons["listed"]["known_bot"] == reached["listed"] > 0
    assert reasons["persistent"]["author_history"] > 0
    assert reasons["throwaway"]["new_account"] > 0.5 * reached["throwaway"]
    assert reasons["flood"]["post_frequency"] > 0
    assert reasons["aged_campaign"]["flooding"] > 0.5 * reached["aged_campaign"]
    told = {sample.labels["reason"] for metric in system.stack.metrics.filtered.collect() for sample in metric.samples}
    assert told >= {"known_bot", "author_history", "new_account", "post_frequency", "flooding"}
    # Whatever the filter rejects is kept, without its text.
    stream = await system.bus.jetstream.stream_info("SOCIAL_REJECTED")
    dropped = sum(
        sum(found[reason] for reason in (*REJECTED, "known_bot", "author_history")) for found in reasons.values()
    )
    assert stream.state.messages >= dropped > 0
