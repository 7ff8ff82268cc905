"""WindowStore by itself: posts a second on one core, memory, and the same windows in bytewax, a Python stream library.

The posts are made up but have the shape of recorded ones (every field set, a hundred characters of text, many
authors), each with an id of its own, in order of time. They go in batches of a thousand, as serialized messages.

    python bench/windows.py [--posts 1000000] [--symbols 200] [--stream-posts 100000]
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import importlib.metadata
import importlib.util
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import psutil

from sentimesh.native import SlideCount, WindowStats, WindowStore
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost

START_MS = 1_700_000_100_000  # a multiple of WINDOW_MS
WINDOW_MS = 300_000
HOUR_MS = 3_600_000
BATCH = 1_000
POSTS_A_MINUTE = 10_000
PLATFORMS = ("twitter", "reddit", "telegram", "discord")
WORDS = (
    "bitcoin",
    "breaking",
    "out",
    "etf",
    "inflows",
    "shorts",
    "trapped",
    "whales",
    "keep",
    "buying",
    "every",
    "dip",
)
MIB = 1 << 20


def machine() -> str:
    """Return the processor's name and the load average."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} CPUs{load}"


def posts(count: int, span_ms: int, symbols: Sequence[str]) -> Iterator[bytes]:
    """Yield serialized posts, evenly over the span."""
    rng = random.Random(11)  # noqa: S311 - the same posts every time, nothing secret
    for number in range(count):
        at_ms = START_MS + number * span_ms // count
        platform = rng.choice(PLATFORMS)
        author, native_id = rng.randrange(50_000), 1_183_904_570_830_774_272 + number
        post = SocialPost(
            post_id=f"{platform}:{native_id}",
            platform=platform,
            symbol=rng.choice(symbols),
            text=" ".join(rng.choices(WORDS, k=18)),
            author_id=str(2_718_281_828 + author),
            timestamp_ms=at_ms,
            engagement=SocialPost.EngagementMetrics(likes=author % 500, reposts=author % 90, replies=3, views=4_000),
            author=SocialPost.AuthorMetrics(
                followers=author, following=300, account_created_ms=1_400_000_000_000, total_posts=9_000
            ),
            source_url=f"https://example.com/{author}/status/{native_id}",
            language="en",
            received_at_ms=at_ms + 900,
            ingested_at_ms=at_ms + 950,
        )
        yield ScoredPost(
            post=post,
            polarity=rng.uniform(-1, 1),
            confidence=rng.random(),
            credibility_score=rng.uniform(0.3, 1),
            engagement_weight=rng.uniform(0.1, 10),
            model_version="sentimesh-base-2.1",
        ).SerializeToString()


def batches(messages: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Cut a stream into batches."""
    while batch := list(islice(messages, BATCH)):
        yield batch


# --- posts a second


@dataclass
class Run:
    """``seconds`` of this thread's processor time, so that what else runs on the machine counts as little as can be."""

    seconds: float
    windows: list[WindowStats]
    slides: int


def run_store(stream: Sequence[list[bytes]], symbols: Sequence[str], span_ms: int, late_ms: int | None = None) -> Run:
    """Feed a store, by the event clock or by a system clock that is ``late_ms`` ahead of the posts."""
    store = WindowStore(symbols)
    seconds, slides = 0.0, 0
    windows: list[WindowStats] = []
    for number, batch in enumerate(stream):
        clock_ms = None if late_ms is None else START_MS + number * span_ms // len(stream) + late_ms
        started = time.thread_time()
        result = store.add_batch(batch, clock_ms)
        seconds += time.thread_time() - started
        assert result.statuses.count("accepted") == len(batch)
        windows += [event for _, event in result.events if isinstance(event, WindowStats)]
        slides += sum(isinstance(event, SlideCount) for _, event in result.events)
    started = time.thread_time()
    rest = store.advance(START_MS + span_ms + WINDOW_MS)
    seconds += time.thread_time() - started
    return Run(seconds, windows + [event for event in rest if isinstance(event, WindowStats)], slides)


def show_speed(stream: Sequence[list[bytes]], symbols: Sequence[str], rounds: int) -> None:
    """Print the posts a second of the fastest round, for each clock."""
    count = sum(len(batch) for batch in stream)
    for label, late_ms in (("event clock", None), ("system clock, posts 3 s late", 3_000), ("30 s late", 30_000)):
        best = min((run_store(stream, symbols, HOUR_MS, late_ms) for _ in range(rounds)), key=lambda run: run.seconds)
        print(
            f"{label:<30}{count / best.seconds:>12,.0f} posts/s{len(best.windows):>8,} windows{best.slides:>11,} slides"
        )


# --- memory


def memory(symbols: Sequence[str]) -> list[tuple[int, int]]:
    """Return posts taken and bytes of resident memory more than before, hour by hour; in a process of its own."""
    hours, an_hour = 3, 60 * POSTS_A_MINUTE
    stream = batches(posts(hours * an_hour, hours * HOUR_MS, symbols))
    first = next(stream)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    store = WindowStore(symbols)
    store.add_batch(first)
    found = []
    for number, batch in enumerate(stream, start=2):
        store.add_batch(batch)
        if number * BATCH % an_hour == 0:
            found.append((number * BATCH, process.memory_info().rss - before))
    return found


def show_memory(symbols: Sequence[str]) -> None:
    """Print how much a store takes at the specification's volume."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for count, size in pool.submit(memory, symbols).result():
            held = min(count, 120 * POSTS_A_MINUTE)
            print(f"{count:>12,} posts taken{held:>12,} held{size / MIB:>8.1f} MiB{size / held:>8.0f} bytes a post")


# --- the same windows in a Python stream library


@dataclass
class Sums:
    """What a window needs, as a user of the library would write it."""

    polarity_weight: float = 0.0
    weight: float = 0.0
    credibility: float = 0.0
    count: int = 0
    authors: set[tuple[str, str]] = field(default_factory=set)
    platforms: Counter[str] = field(default_factory=Counter)

    def add(self, scored: ScoredPost) -> Sums:
        """Take a post in and return this object."""
        weight = scored.engagement_weight * scored.credibility_score
        self.polarity_weight += scored.polarity * weight
        self.weight += weight
        self.credibility += scored.credibility_score
        self.count += 1
        self.authors.add((scored.post.platform, scored.post.author_id))
        self.platforms[scored.post.platform] += 1
        return self


def refuse(_one: Sums, _other: Sums) -> Sums:
    """Stand where only session windows come: tumbling windows are never merged."""
    raise AssertionError


def run_bytewax(stream: Sequence[list[bytes]]) -> tuple[float, dict[tuple[str, int], Sums]]:
    """Return seconds of processor time and the windows by symbol and start; imports bytewax."""
    from bytewax import operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.operators import windowing
    from bytewax.testing import TestingSink, TestingSource, run_main

    start = dt.datetime.fromtimestamp(START_MS / 1000, dt.UTC)
    clock: windowing.EventClock[ScoredPost] = windowing.EventClock(
        lambda scored: dt.datetime.fromtimestamp(scored.post.timestamp_ms / 1000, dt.UTC),
        wait_for_system_duration=dt.timedelta(0),
        # Recorded time only: with the wall clock in it the watermark would run ahead of posts as the run takes time.
        now_getter=lambda: start,
        to_system_utc=lambda _: None,
    )
    length = dt.timedelta(milliseconds=WINDOW_MS)
    found: list[tuple[str, tuple[int, Sums]]] = []
    flow = Dataflow("windows")
    messages = op.input("in", flow, TestingSource([data for batch in stream for data in batch], batch_size=BATCH))
    parsed = op.map("parse", messages, ScoredPost.FromString)
    keyed = op.key_on("symbol", parsed, lambda scored: scored.post.symbol)
    windower = windowing.TumblingWindower(length=length, align_to=start)
    closed = windowing.fold_window("fold", keyed, clock, windower, Sums, Sums.add, refuse, ordered=False)
    op.output("out", closed.down, TestingSink(found))
    started = time.process_time()
    run_main(flow)  # type: ignore[no-untyped-call]
    seconds = time.process_time() - started
    return seconds, {(symbol, START_MS + number * WINDOW_MS): sums for symbol, (number, sums) in found}


def check_same(ours: Sequence[WindowStats], theirs: dict[tuple[str, int], Sums]) -> None:
    """Fail unless both have the same windows."""
    with_posts = {(stats.symbol, stats.start_ms): stats for stats in ours if stats.post_count}
    assert with_posts.keys() == theirs.keys()
    for key, stats in with_posts.items():
        sums = theirs[key]
        assert (stats.post_count, stats.unique_authors) == (sums.count, len(sums.authors))
        assert stats.platform_counts == sums.platforms
        assert abs(stats.polarity - sums.polarity_weight / sums.weight) < 1e-6
        assert abs(stats.credibility - sums.credibility / sums.count) < 1e-6


def show_ratio(stream: Sequence[list[bytes]], symbols: Sequence[str], span_ms: int) -> None:
    """Print both speeds over the same posts and their ratio."""
    if importlib.util.find_spec("bytewax") is None:
        print("bytewax is not installed (`make setup` brings it): not compared")
        return
    count = sum(len(batch) for batch in stream)
    theirs_seconds, theirs = run_bytewax(stream)
    ours = run_store(stream, symbols, span_ms)
    check_same(ours.windows, theirs)
    print(f"{'bytewax ' + importlib.metadata.version('bytewax'):<30}{count / theirs_seconds:>12,.0f} posts/s")
    print(f"{'WindowStore':<30}{count / ours.seconds:>12,.0f} posts/s, sliding windows included")
    print(f"the same {len(theirs):,} windows, {theirs_seconds / ours.seconds:.0f} times as fast")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--posts", type=int, default=1_000_000, help="posts over an hour")
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--stream-posts", type=int, default=100_000, help="how many of them the stream library gets")
    arguments = parser.parse_args()
    symbols = [f"SYM{number}" for number in range(arguments.symbols)]
    print(f"{machine()}; one thread's processor time, the fastest of {arguments.rounds}")
    stream = list(batches(posts(arguments.posts, HOUR_MS, symbols)))
    size = sum(len(data) for data in stream[0]) // len(stream[0])
    print(f"\n{arguments.posts:,} posts of {size} bytes over an hour and {arguments.symbols} symbols")
    show_speed(stream, symbols, arguments.rounds)
    part = stream[: max(1, arguments.stream_posts // BATCH)]
    print(f"\nThe first {sum(len(batch) for batch in part):,} of them in tumbling windows of five minutes")
    show_ratio(part, symbols, HOUR_MS * len(part) // len(stream))
    del stream, part
    print(f"\nResident memory at {POSTS_A_MINUTE:,} posts a minute over {arguments.symbols} symbols, hour by hour")
    show_memory(symbols)


if __name__ == "__main__":
    main()
