"""How long an aggregator takes to start again after an hour at 10,000 posts a minute: until its port answers.

The hour is in the stream of scored posts and worked on, as a killed aggregator leaves it. Reading it back is measured
by itself too, both ways.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from unittest import mock

from pydantic import SecretStr

from sentimesh.bus import MESSAGE_ID_HEADER, SCORED, Bus, Publication
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.replicas import Replica
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.telemetry import configure_logging
from tests.e2e.faults import Deployment

CHUNK = 5000
HOUR_MS = 3_600_000
TEXT = "the text of a post, as long as those on X are: about a hundred and forty characters, give or take, with $BTC in"


def scored(number: int, posts: int, now_ms: int, chance: random.Random) -> Publication:
    """Return one of the hour's posts."""
    symbol = chance.choice(DEFAULT_SYMBOLS)
    post = SocialPost(
        post_id=f"twitter:{number}",
        platform="twitter",
        symbol=symbol,
        text=TEXT,
        author_id=str(chance.randrange(posts // 20)),
        timestamp_ms=now_ms - HOUR_MS + number * HOUR_MS // posts,
        received_at_ms=now_ms,
    )
    message = ScoredPost(
        post=post,
        polarity=chance.uniform(-1, 1),
        confidence=0.5,
        credibility_score=chance.uniform(0.3, 1),
        engagement_weight=chance.uniform(0.1, 10),
        model_version="sentimesh-base-2.1",
    )
    return f"social.scored.{symbol}", message, f"{number}/{symbol}/scorer", {}


async def fill(bus: Bus, posts: int) -> None:
    """Put the hour into the stream, and a consumer beside it that has done with it."""
    chance = random.Random(1)  # noqa: S311 (posts, no secret)
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, posts, CHUNK):
        last = min(first + CHUNK, posts)
        for number in range(first, last):
            subject, message, identity, _ = scored(number, posts, now_ms, chance)
            await bus.client.publish(subject, message.SerializeToString(), headers={MESSAGE_ID_HEADER: identity})
        # Nobody waits for each to be confirmed, but a stream takes in no more than ten thousand at once.
        while (await bus.jetstream.stream_info(SCORED.stream)).state.last_seq < last:  # noqa: ASYNC110 (the server is asked)
            await asyncio.sleep(0.01)
    await bus.ensure_consumer(SCORED, Replica().durable, [SCORED.stored_subjects], posts)


async def read_back(bus: Bus, posts: int, way: str) -> None:
    """Read the hour back and do nothing with it."""
    processor, wall = time.process_time(), time.monotonic()
    count = 0
    async for batch in bus.read_back(SCORED, None, posts):
        count += len(batch)
    assert count == posts
    processor, wall = (time.process_time() - processor) / posts * 1e6, (time.monotonic() - wall) / posts * 1e6
    print(f"read back {way}: {processor:.1f} us of the processor a message, {wall:.1f} us of time", flush=True)


async def measure(folder: Path, posts: int, rounds: int) -> None:
    """Start it that many times."""
    async with Deployment(folder, influxdb=False, sync_always=False, clock="system", stages=()) as deployment:
        async with Bus(SecretStr(deployment.urls["nats"])) as bus:
            await fill(bus, posts)
            await read_back(bus, posts, "in native code")
            with mock.patch("sentimesh.read_back._native_reader", return_value=None):
                await read_back(bus, posts, "with nats-py, as over TLS")
        seconds = []
        for _ in range(rounds):
            began = time.monotonic()
            await deployment.start("aggregator")
            await deployment.answering("aggregator")
            seconds.append(time.monotonic() - began)
            await deployment.kill("aggregator")
    each = ", ".join(f"{s:.1f}" for s in seconds)
    print(f"{posts:,} posts of an hour in the log: the aggregator answers after {each} s")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    configure_logging("error", json=False)
    with tempfile.TemporaryDirectory(prefix="sentimesh-startup-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(measure(Path(folder), arguments.posts, arguments.rounds))


if __name__ == "__main__":
    main()
