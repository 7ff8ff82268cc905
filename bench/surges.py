"""Planted surges through the real pipeline: seconds from the first post of each to its alert, and alerts for nothing.

Five symbols with their usual chatter for half a day (event clock), ten surges each, every 75 minutes at a random
moment, so that the hour before each has none. "posts": how many times the usual posts come on top; "mentions": of the
symbol in the surge's first minute, in times the mean of the hour before (posts about other symbols name it, too). The
time is the posts' own: from the first post of a surge to the end of the sliding window that shows it. What comes on
top on the system clock is the way of a post through the stages (bench/latency.py).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median

import orjson
from google.protobuf.message import Message

from ingest_svc.sources.simulator import Spike, simulate
from sentimesh.cli.replay import private
from sentimesh.ledger import Ledger
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost
from sentimesh.settings import load_settings
from sentimesh.source import SourcePost
from sentimesh.stack import Stack
from sentimesh.stage import Outcome
from sentimesh.telemetry import configure_logging

SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "DOGE")
START_MS = 1_700_000_400_000
MINUTE_MS = 60_000
PERIOD_MS = 75 * MINUTE_MS
STAGES = ("ingest", "filter", "scorer", "aggregator")


class Crowd:
    """The simulated posts as a source; notes when each surge began."""

    name = "surges"

    def __init__(self, spikes: Sequence[Spike], per_minute: float, duration_ms: int) -> None:
        self._spikes = spikes
        self._per_minute = per_minute
        self._duration_ms = duration_ms
        self.first_ms: dict[tuple[str, int], int] = {}

    async def posts(self) -> AsyncIterator[SourcePost]:
        """Yield them as fast as they are taken."""
        for post in simulate(3, START_MS, SYMBOLS, self._per_minute, self._duration_ms, self._spikes, ()):
            if post.label == "spike":
                self._note(post.event_time_ms)
            raw = RawPost(platform=post.platform, payload=orjson.dumps(post.payload), received_at_ms=post.event_time_ms)
            yield SourcePost(raw, post.post_id, post.event_time_ms)

    def _note(self, at_ms: int) -> None:
        # Only one surge is on at a time.
        for spike in self._spikes:
            if spike.at_ms <= at_ms < spike.at_ms + spike.duration_ms:
                self.first_ms.setdefault((spike.symbol, spike.at_ms), at_ms)


class Mentions:
    """Notes when each symbol was mentioned, as the aggregator sees it."""

    def __init__(self) -> None:
        self._times: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}

    def on_outcomes(self, stage: str, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        """See :class:`sentimesh.host.Observer`."""
        if stage == "aggregator" and isinstance(message, ScoredPost):
            self._times[message.post.symbol].append(message.post.timestamp_ms)

    def count(self, symbol: str, start_ms: int, end_ms: int) -> int:
        """Return how many mentions are in [start, end)."""
        return sum(start_ms <= at < end_ms for at in self._times[symbol])


def plan(factor: float) -> list[Spike]:
    """Return fifty surges that do not overlap: the first after an hour."""
    chance = random.Random(5)  # noqa: S311 (a plan, no secret)
    slot_ms = PERIOD_MS // len(SYMBOLS)
    return [
        Spike(
            symbol,
            START_MS + 60 * MINUTE_MS + turn * PERIOD_MS + place * slot_ms + chance.randrange(MINUTE_MS),
            duration_ms=2 * MINUTE_MS,
            factor=factor,
        )
        for turn in range(10)
        for place, symbol in enumerate(SYMBOLS)
    ]


async def measure(folder: Path, factor: float, per_minute: float) -> None:
    """Run it and print a row."""
    spikes = plan(factor)
    crowd = Crowd(spikes, per_minute, 60 * MINUTE_MS + 10 * PERIOD_MS)
    ledger, mentions = Ledger(), Mentions()
    settings = private(load_settings(None), "event", ",".join(SYMBOLS), "vader")
    async with Stack(settings, stages=STAGES, data_dir=folder, observers=[ledger, mentions], free_ports=True) as stack:
        await stack.run_source(crowd)
        await stack.finish()
    alerts = [(spike.symbol, spike.detected_at_ms) for spike in ledger.spikes]
    seconds, explained, sizes = [], set(), []
    for (symbol, at_ms), first_ms in crowd.first_ms.items():
        usual = mentions.count(symbol, first_ms - 60 * MINUTE_MS, first_ms) / 60
        sizes.append(mentions.count(symbol, first_ms, first_ms + MINUTE_MS) / usual)
        mine = [a for a in alerts if a[0] == symbol and first_ms < a[1] <= at_ms + 5 * MINUTE_MS]
        explained.update(mine)
        if mine:
            seconds.append((min(at for _, at in mine) - first_ms) / 1000)
    within = sum(s <= 60 for s in seconds)
    print(
        f"{factor:>7.0f}x{median(sizes):>9.1f}x{len(crowd.first_ms):>9}{len(seconds):>9}{within:>13}"
        f"{median(seconds):>8.1f} s{max(seconds):>6.1f} s{len(set(alerts) - explained):>14}{ledger.received:>10,}",
        flush=True,
    )


def main() -> None:
    """Print a row a size of surge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factors", default="5,6,8,12", help="posts that come on top, in times the usual ones")
    parser.add_argument("--rate", type=float, default=600, help="usual posts a minute, all symbols")
    arguments = parser.parse_args()
    configure_logging("error", json=False)
    print(
        f"{'posts':>8}{'mentions':>10}{'planted':>9}{'alerted':>9}{'within 60 s':>13}{'p50':>10}{'max':>8}"
        f"{'other alerts':>14}{'posts':>10}"
    )
    for factor in arguments.factors.split(","):
        with tempfile.TemporaryDirectory(prefix="sentimesh-surges-", dir="/var/tmp") as folder:
            Path(folder).chmod(0o755)
            asyncio.run(measure(Path(folder), float(factor), arguments.rate))


if __name__ == "__main__":
    main()
