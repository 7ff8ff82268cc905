"""What the pipeline makes of a crowd whose every post is labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import orjson

from ingest_svc.sources.simulator import Campaign, SimulatedPost, Spike, simulate
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
