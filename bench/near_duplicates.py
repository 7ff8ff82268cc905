"""Near-duplicates: fingerprints, queries, recall, memory, and the whole filter stage with Redis in the loop.

Fingerprints are random with planted neighbours; each post has an id of its own, and all are within the hour, so that
all are live. Redis is the server that `sentimesh up` starts, on this machine, with its log of writes. Times are of the
processor, of this process and of Redis, so that a machine that does other things as well changes them little.

    python bench/near_duplicates.py [--entries 600000] [--fingerprints 1000000]
    python bench/near_duplicates.py --texts

With ``--texts``: what should be hashed of a text, by what it finds in the recordings (those that are here), within an
hour and over all of the time. Campaigns: the same words in ten or more posts, reposts aside, from the fourth on.
Single: words that occur once, on X from accounts over a year old; they really differ from those of what they are
called a copy of where more than a fifth of both texts' words are in one of them only. Short: under 20 letters.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import re
import string
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import redis.asyncio as redis
from simhash import Simhash

from bench.credibility import DATA, RECORDINGS, TELEGRAM, Everything, folded, recorded
from filter_svc.author_history import RedisAuthorHistory
from filter_svc.credibility import account_age_days
from filter_svc.known_bots import KNOWN_BOTS_KEY, RedisKnownBots
from filter_svc.near_duplicates import MemoryNearDuplicates, RedisNearDuplicates, Seen
from filter_svc.outage import Outage
from filter_svc.service import NOTHING_TO_HASH, FilterStage
from filter_svc.sightings import RedisSightings
from ingest_svc.claims import MemoryClaims
from ingest_svc.service import IngestStage
from ingest_svc.text import own_words
from sentimesh.embedded import EmbeddedServers
from sentimesh.native import simhash64
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.stage import Delivery, Forward
from sentimesh.symbols import TrackedExtractor, load_assets

START_MS = 1_700_000_000_000
BATCH = 200
MIB = 1 << 20
QUERIES = 20_000
PLANTED = 6_000
Fingerprints = np.ndarray[tuple[int], np.dtype[np.uint64]]


def texts(count: int, seed: int) -> list[str]:
    """Return texts of about 128 characters out of 5,000 words, common ones more often, as people write."""
    rng = random.Random(seed)  # noqa: S311 - the same texts every time, nothing secret
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=20)) for _ in range(count)]


def show_fingerprints() -> None:
    """Print both speeds over the same texts and their ratio."""
    some = texts(QUERIES, 1)
    started = time.process_time()
    simhash64(some)
    ours = (time.process_time() - started) / len(some)
    started = time.process_time()
    for text in some[:1000]:
        _ = Simhash(text).value
    theirs = (time.process_time() - started) / 1000
    length = sum(map(len, some)) // len(some)
    print(f"fingerprint of {length} characters: {ours * 1e6:.2f} µs, the simhash package {theirs * 1e6:.0f} µs", end="")
    print(f": {theirs / ours:.0f} times as fast")


def as_posts(fingerprints: Fingerprints, first: int) -> list[Seen]:
    """Return posts with these fingerprints; numbers, ids and times go on from ``first``."""
    return [
        Seen(f"twitter:{1_183_904_570_830_774_272 + n}", fingerprint, n + 1, START_MS + n * 3)
        for n, fingerprint in enumerate(fingerprints.tolist(), first)
    ]


async def answers(index: MemoryNearDuplicates | RedisNearDuplicates, posts: Sequence[Seen]) -> list[int | None]:
    """Return the answers, asked in batches as the filter does."""
    found: list[int | None] = []
    for at in range(0, len(posts), BATCH):
        originals = await index.originals(posts[at : at + BATCH])
        found += [original and original.fingerprint for original in originals]
    return found


def planted(fingerprints: Fingerprints, rng: np.random.Generator) -> Fingerprints:
    """Return neighbours of random entries, 0 to 4 bits away."""
    found = rng.choice(fingerprints, PLANTED)
    for number in range(PLANTED):
        for bit in rng.choice(64, number % 5, replace=False):
            found[number] ^= np.uint64(1 << int(bit))
    return found


def brute_force(all_of_them: Fingerprints, first: int) -> list[int | None]:
    """Return for each entry from ``first`` on the earliest before it within 3 bits."""
    found: list[int | None] = []
    for number in range(first, len(all_of_them)):
        near = np.bitwise_count(all_of_them[:number] ^ all_of_them[number]) <= 3
        at = int(near.argmax())
        found.append(int(all_of_them[at]) if near[at] else None)
    return found


def resident() -> int:
    """Return this process's resident memory in bytes."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


class Bench:
    """A filter alone and one that shares, filled alike."""

    def __init__(self, client: redis.Redis, server: psutil.Process) -> None:
        self.client = client
        self.server = server
        self.own = MemoryNearDuplicates()
        self.shared = RedisNearDuplicates(client)
        self.rng = np.random.default_rng(5)
        self.all: Fingerprints = np.empty(0, np.uint64)

    def _server_seconds(self) -> float:
        times = self.server.cpu_times()
        return float(times.user + times.system)

    async def fill(self, count: int) -> None:
        """Bring both to so many entries."""
        first = len(self.all)
        posts = as_posts(self._more(max(0, count - first)), first)
        await answers(self.own, posts)
        await answers(self.shared, posts)

    def _more(self, count: int) -> Fingerprints:
        fingerprints = self.rng.integers(0, 1 << 64, count, np.uint64)
        self.all = np.concatenate([self.all, fingerprints])
        return fingerprints

    async def show_memory(self, count: int) -> None:
        """Fill with ``count`` entries and print what they take."""
        posts = as_posts(self._more(count), 0)
        before = resident()
        await answers(self.own, posts)
        native = resident() - before
        used = (await self.client.info("memory"))["used_memory"]
        before, started, worked = resident(), time.perf_counter(), self._server_seconds()
        await answers(self.shared, posts)
        seconds, worked = time.perf_counter() - started, self._server_seconds() - worked
        used = (await self.client.info("memory"))["used_memory"] - used
        here = (resident() - before) / MIB
        print(
            f"memory of {count:,} entries: {used / MIB:.0f} MiB in Redis, {native / MIB:.0f} MiB in the native table;"
        )
        print(f"a filter with Redis holds {here:.0f} MiB: the native table, and posts to write again")
        print(
            f"written at {count / seconds:,.0f} posts/s by the wall clock, {worked / count * 1e6:.0f} µs of Redis each"
        )

    async def show_queries(self) -> None:
        """Print what a query takes in each and by brute force."""
        live = len(self.all)
        started = time.process_time()
        for fingerprint in self.rng.choice(self.all, 200):
            _ = bool((np.bitwise_count(self.all ^ fingerprint) <= 3).any())
        scan = (time.process_time() - started) / 200
        posts = as_posts(self._more(QUERIES), live)
        print(f"query and insertion at {live:,} live entries; numpy brute force {scan * 1e6:,.0f} µs a query")
        for name, index in (("one process", self.own), ("through Redis", self.shared)):
            started, worked = time.process_time(), self._server_seconds()
            await answers(index, posts)
            here = (time.process_time() - started) / QUERIES
            there = (self._server_seconds() - worked) / QUERIES
            print(
                f"  {name:<14}{here * 1e6:6.1f} µs here, {there * 1e6:5.1f} µs in Redis: "
                f"{scan / (here + there):.1f} times as fast"
            )

    async def show_start(self) -> None:
        """Print how long the first batch takes a filter that has read nothing."""
        live = len(self.all)
        posts = as_posts(self._more(BATCH), live)
        await answers(self.own, posts)
        started, worked = time.perf_counter(), self._server_seconds()
        await answers(RedisNearDuplicates(self.client), posts)
        seconds, worked = time.perf_counter() - started, self._server_seconds() - worked
        print(f"a filter that starts reads {live:,} entries in {seconds:.2f} s, {worked:.2f} s of Redis")

    async def show_flood(self) -> None:
        """Print what posts of one text take once there are very many of them."""
        live = len(self.all)
        posts = as_posts(np.full(100_000, self._more(1)[0]), live)
        self.all = np.concatenate([self.all, np.full(99_999, self.all[-1])])
        await answers(self.own, posts)
        await answers(self.shared, posts[:-QUERIES])
        started = self._server_seconds()
        found = await answers(self.shared, posts[-QUERIES:])
        each = (self._server_seconds() - started) / QUERIES
        assert set(found) == {posts[0].fingerprint}
        print(f"after {len(posts) - QUERIES:,} posts of one text: {each * 1e6:.1f} µs in Redis for each more")

    async def show_stage(self) -> None:
        """Print the speed of the whole filter stage."""
        live = len(self.all)
        outage = Outage()
        stage = FilterStage(
            RedisKnownBots(self.client, outage),
            self.shared,
            RedisSightings(self.client, outage),
            RedisAuthorHistory(self.client, outage),
        )
        await self.client.sadd(KNOWN_BOTS_KEY, *(f"twitter:{number}" for number in range(10_000)))
        rng = random.Random(3)  # noqa: S311 - the same posts every time, nothing secret
        batch = [
            Delivery(
                SocialPost(
                    post_id=f"twitter:stage:{number}",
                    platform="twitter",
                    symbol="BTC",
                    text=text,
                    author_id=str(rng.randrange(1_000_000)),
                    timestamp_ms=START_MS + live * 3 + number,
                    author=SocialPost.AuthorMetrics(followers=50, following=90, account_created_ms=1_500_000_000_000),
                ),
                live + number + 1,
            )
            for number, text in enumerate(texts(QUERIES, 2))
        ]
        started, own, worked = time.perf_counter(), time.process_time(), self._server_seconds()
        for at in range(0, len(batch), BATCH):
            await stage.process(batch[at : at + BATCH])
        seconds, own, worked = (
            time.perf_counter() - started,
            time.process_time() - own,
            self._server_seconds() - worked,
        )
        both = QUERIES / (own + worked)
        print(f"the filter stage with Redis in the loop: {QUERIES / seconds:,.0f} posts/s by the wall clock;")
        print(
            f"{own / QUERIES * 1e6:.0f} µs of processor time here and {worked / QUERIES * 1e6:.0f} µs in Redis a post: "
            f"{both:,.0f} posts/s on one core for both"
        )

    async def show_recall(self, count: int) -> None:
        """Compare both with brute force, among ``count`` entries."""
        await self.fill(count)
        first = len(self.all)
        queries = planted(self.all, self.rng)
        self.all = np.concatenate([self.all, queries])
        posts = as_posts(queries, first)
        expected = brute_force(self.all, first)
        near = sum(original is not None for original in expected)
        print(f"recall among {first:,}: {near:,} of {PLANTED:,} planted posts are within 3 bits by brute force")
        for name, index in (("one process", self.own), ("through Redis", self.shared)):
            found = await answers(index, posts)
            right = sum(ours == theirs for ours, theirs in zip(found, expected, strict=True) if theirs is not None)
            wrong = sum(ours is not None and theirs is None for ours, theirs in zip(found, expected, strict=True))
            print(f"  {name:<14}{100 * right / near:.2f} % found, the earliest named; {wrong} that are none")


async def run(entries: int, fingerprints: int) -> None:
    """Start Redis and measure."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} CPUs{load}")
    show_fingerprints()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServers(Path(folder), nats=False, postgres=False) as servers,
            redis.Redis.from_url(servers.redis_url) as client,
        ):
            bench = Bench(client, psutil.Process(servers.process_ids["valkey"]))
            await bench.show_memory(entries)
            await bench.show_queries()
            await bench.show_start()
            await bench.show_stage()
            await bench.show_recall(fingerprints)
            await bench.show_flood()


HOUR_MS = 3_600_000
ALL_MS = 1 << 40
PUNCTUATION = {ord(mark): chr(0x4E00 + place) for place, mark in enumerate(string.punctuation)}
VARIANTS: dict[str, Callable[[str], str]] = {
    "words (as it is)": str,
    "and punctuation": lambda text: own_words(text).translate(PUNCTUATION),
    "numbers are all one": lambda text: re.sub(r"\d+", "0", own_words(text)),
    "without $ and # words": lambda text: re.sub(r"[$#]\w+", " ", text),
    "without $ words": lambda text: re.sub(r"\$[A-Za-z]\w*", " ", text),
    "no text under 20 letters": lambda text: text if len(folded(text)) >= SHORT else "",
}
SHORT = 20


@dataclass(frozen=True, slots=True)
class Crowd:
    """Posts of a recording, their words, and which of them belong to campaigns or are single."""

    posts: list[SocialPost]
    words: list[str]
    late: list[int]
    single: list[int]

    def really_differ(self, one: int, other: int) -> bool:
        """Say whether the words of two posts do."""
        first, second = set(self.words[one].split()), set(self.words[other].split())
        return len(first ^ second) > 0.2 * len(first | second)


async def crowd(path: Path, extractor: type[TrackedExtractor]) -> Crowd:
    """Return what reaches the filter of a recording."""
    ingest = IngestStage(
        extractor(load_assets(DEFAULT_SYMBOLS)), MemoryClaims(limit=1_000_000), ["en"], lambda: START_MS
    )
    posts: list[SocialPost] = []
    for number, (raw, _) in enumerate(recorded(path), 1):
        [outcomes] = await ingest.process([Delivery(raw, number)])
        sent = [outcome.message for outcome in outcomes[:1] if isinstance(outcome, Forward)]
        posts += [message for message in sent if isinstance(message, SocialPost)]
    words = [folded(post.text) for post in posts]
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, (post, text) in enumerate(zip(posts, words, strict=True)):
        if text and not post.repost_of:
            places[text].append(place)
    late = [place for found in places.values() if len(found) >= 10 for place in found[3:]]
    once = [found[0] for found in places.values() if len(found) == 1]
    single = [place for place in once if (account_age_days(posts[place]) or 366) > 365]
    return Crowd(posts, words, late, single)


async def copies(found: Crowd, variant: Callable[[str], str], ttl_ms: int) -> dict[int, int]:
    """Return which posts are called copies, and one post with the original's fingerprint for each."""
    fingerprints = simhash64([variant(post.text) for post in found.posts])
    seen = [
        Seen(post.post_id, fingerprint, place, post.timestamp_ms)
        for place, (post, fingerprint) in enumerate(zip(found.posts, fingerprints, strict=True))
        if fingerprint != NOTHING_TO_HASH
    ]
    index = MemoryNearDuplicates(ttl_ms=ttl_ms)
    first: dict[int, int] = {}
    called: dict[int, int] = {}
    for at in range(0, len(seen), BATCH):
        batch = seen[at : at + BATCH]
        for post in batch:
            first.setdefault(post.fingerprint, post.sequence)
        for post, original in zip(batch, await index.originals(batch), strict=True):
            if original is not None:
                called[post.sequence] = first[original.fingerprint]
    return called


async def show_texts() -> None:
    """Print what each way to fold a text finds."""
    for title, extractor in (("X, 2019", TrackedExtractor), (TELEGRAM, Everything)):
        path = DATA / RECORDINGS[title]
        if not path.is_file():
            print(f"{title}: ../shared/data/posts/{RECORDINGS[title]} is not here: left out")
            continue
        found = await crowd(path, extractor)
        print(f"{title}: {len(found.posts):,} posts, {len(found.late):,} of campaigns, {len(found.single):,} single")
        for name, ttl_ms in (("within an hour", HOUR_MS), ("over all of it", ALL_MS)):
            print(f"  {name:<26}{'campaigns':>10}{'single':>8}{'share':>8}{'differ':>8}{'short':>7}")
            for variant, change in VARIANTS.items():
                called = await copies(found, change, ttl_ms)
                late = sum(place in called for place in found.late)
                single = [place for place in found.single if place in called]
                differ = sum(found.really_differ(place, called[place]) for place in single)
                short = sum(len(found.words[place]) < SHORT for place in single)
                share = len(single) / len(found.single)
                print(f"    {variant:<24}{late:>10,}{len(single):>8,}{share:>8.2%}{differ:>8,}{short:>7}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=600_000)
    parser.add_argument("--fingerprints", type=int, default=1_000_000)
    parser.add_argument("--texts", action="store_true", help="measure what to hash instead")
    arguments = parser.parse_args()
    asyncio.run(show_texts() if arguments.texts else run(arguments.entries, arguments.fingerprints))


if __name__ == "__main__":
    main()
