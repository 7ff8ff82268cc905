"""The aggregator against its oracle: streams made up to be difficult, and a recorded one."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_svc.service import AggregatorOptions, AggregatorStage
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.stage import Delivery, Drop, Forward, Outcome
from tests.aggregator_svc.comparison import Comparison, Export
from tests.aggregator_svc.oracle import DAY_MS, Oracle, Post, Rules, float32
from tests.aggregator_svc.test_service import Shelf

SENTIMESH = Path(sys.executable).with_name("sentimesh")
RECORDED_POSTS = 12_000
# Half a minute, and several where the machine has other work.
REPLAYED = pytest.mark.timeout(1200)
START = 1_700_000_400_000
MINUTE = 60
SYMBOLS = ("BTC", "ETH", "SOL")
# What a live score says of the moment, and not of its posts.
OF_THE_MOMENT = (
    "volume_ratio",
    "social_sentiment_score",
    "directional_score",
    "baseline_ready",
    "viral_spike",
    "spike_ratio",
)


def delivery(number: int, post: Post) -> Delivery[ScoredPost]:
    inner = SocialPost(
        post_id=post.post_id,
        platform=post.platform,
        symbol=post.symbol,
        author_id=post.author_id,
        timestamp_ms=post.timestamp_ms,
        text=post.text,
        source_url=post.source_url,
    )
    scored = ScoredPost(
        post=inner,
        polarity=post.polarity,
        credibility_score=post.credibility,
        engagement_weight=post.engagement_weight,
    )
    return Delivery(scored, number)


class Watched:
    """The stage beside the oracle: both are given the same batches."""

    def __init__(self, symbols: Sequence[str], rules: Rules) -> None:
        self.oracle = Oracle(symbols, rules)
        self.comparison = Comparison()
        self.live_scores = 0
        self._shelf = Shelf()
        self._windows: dict[tuple[int, str], SentimentAggregate] = {}
        self._spikes: dict[tuple[int, str], ViralSpike] = {}
        options = AggregatorOptions(
            window_ms=rules.window_ms,
            span_ms=rules.span_ms,
            allowed_lateness_ms=rules.lateness_ms,
            min_posts_per_window=rules.min_posts,
            min_credibility=rules.min_credibility,
            baseline_days=rules.baseline_days,
            baseline_min_windows=rules.baseline_windows,
            spike_window_ms=rules.spike_window_ms,
            slide_ms=rules.slide_ms,
            spike_threshold=rules.spike_threshold,
            spike_min_mentions=rules.spike_mentions,
            cooldown_ms=rules.cooldown_ms,
        )
        # At each look at the clock a second has passed: live scores are due after every batch.
        seconds = itertools.count(START, 1000)
        self._stage = AggregatorStage(symbols, options, self._shelf, clock="event", now_ms=lambda: next(seconds))
        self._sequence = itertools.count(1)

    async def take(self, batch: Sequence[Post]) -> None:
        outcomes = await self._stage.process([delivery(next(self._sequence), post) for post in batch])
        statuses = [self.oracle.take(post) for post in batch]
        self.oracle.flush()
        assert [next((o.reason for o in each if isinstance(o, Drop)), "accepted") for each in outcomes] == statuses
        alerted = self._note([o for each in outcomes for o in each])
        accepted = {post.symbol for post, status in zip(batch, statuses, strict=True) if status == "accepted"}
        # An alert shows the score at once, in the middle of the batch.
        self._compare_live(accepted | alerted, OF_THE_MOMENT if alerted and len(batch) > 1 else ())

    async def finish(self) -> None:
        outcomes = await self._stage.finish()
        self.oracle.finish()
        self._compare_live(self._note(outcomes), ())
        spikes = {(spike.detected_at_ms, spike.symbol): spike for spike in self.oracle.spikes}
        assert len(spikes) == len(self.oracle.spikes)
        self.comparison.all(self.oracle.windows, self._windows)
        self.comparison.all(spikes, self._spikes)

    def _note(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Keep the last of each window and spike; return the symbols with a new spike."""
        alerted = set()
        for message in (o.message for o in outcomes if isinstance(o, Forward)):
            if isinstance(message, SentimentAggregate):
                self._windows[message.window_start_ms, message.symbol] = message
            elif isinstance(message, ViralSpike):
                key = message.detected_at_ms, message.symbol
                if not message.resolved_at_ms:
                    assert key not in self._spikes
                    alerted.add(message.symbol)
                    self._spikes[key] = message
                self._spikes[key].resolved_at_ms = message.resolved_at_ms
        return alerted

    def _compare_live(self, symbols: set[str], ignoring: Sequence[str]) -> None:
        assert {aggregate.symbol for aggregate in self._shelf.live} == symbols
        for aggregate in self._shelf.live:
            self.live_scores += 1
            expected = self.oracle.live(aggregate.symbol)
            self.comparison.one(("live", aggregate.symbol), expected, aggregate, ignoring=ignoring)
        self._shelf.live.clear()


def cut(posts: Sequence[Post], sizes: Sequence[int]) -> Iterator[Sequence[Post]]:
    """Cut a stream into batches; the sizes come round again."""
    first = 0
    for size in itertools.cycle(sizes):
        if first >= len(posts):
            return
        yield posts[first : first + size]
        first += size


async def watch(posts: Sequence[Post], sizes: Sequence[int], symbols: Sequence[str], rules: Rules) -> Watched:
    watched = Watched(symbols, rules)
    for batch in cut(posts, sizes):
        await watched.take(batch)
    await watched.finish()
    return watched


class Crowd:
    """Makes streams out of a few drawn numbers."""

    def __init__(self, seed: int, span_ms: int) -> None:
        self._random = random.Random(seed)
        self._span_ms = span_ms
        self._now_ms = START + self._random.randrange(600_000)
        self.posts: list[Post] = []

    def quiet(self, number: int, seconds: int) -> None:
        self._between(number, number * seconds)

    def surge(self, number: int, seconds: int) -> None:
        self._between(number, seconds, symbol=self._random.choice(SYMBOLS))

    def late(self, number: int, seconds: int) -> None:
        """A surge that comes when it is over."""
        now_ms = self._now_ms
        self._now_ms -= min(self._random.choice([1, 10, 100]) * seconds * 1000, 8_000_000)
        self._between(number, 60, symbol=self._random.choice(SYMBOLS))
        self._now_ms = now_ms

    def edge(self, number: int, seconds: int) -> None:
        """Posts that are nearly too late, and some that are."""
        now_ms = self._now_ms
        self._now_ms -= self._span_ms + seconds * 2_000
        self._between(number, seconds * 4)
        self._now_ms = now_ms

    def again(self, number: int, seconds: int) -> None:
        """Posts that came before, some of them with another time."""
        for post in self.posts[-number:]:
            other_ms = self._random.choice([post.timestamp_ms, post.timestamp_ms + seconds, self._now_ms])
            self.posts.append(replace(post, timestamp_ms=other_ms))

    def hole(self, number: int, seconds: int) -> None:
        self._now_ms += self._random.choice([number * 600_000, DAY_MS - number * 60_000]) + seconds

    def noise(self, number: int, seconds: int) -> None:
        self._between(number, seconds, symbol="XMR")
        self._between(number, seconds, credibility=0.25)

    def shuffle(self, number: int, seconds: int) -> None:
        """The last posts in any order."""
        last = self.posts[-number:]
        self._random.shuffle(last)
        self.posts[-number:] = last

    def _between(self, number: int, seconds: int, symbol: str = "", credibility: float | None = None) -> None:
        chance = self._random
        times = sorted(chance.randrange(seconds * 1000 + 1) for _ in range(number))
        for time_ms in times:
            trust = chance.choice([0.3, chance.uniform(0.3, 1.0)]) if credibility is None else credibility
            post = Post(
                timestamp_ms=self._now_ms + time_ms,
                post_id=f"p:{len(self.posts)}",
                platform=chance.choice(["twitter", "reddit", "telegram"]),
                symbol=symbol or chance.choice(SYMBOLS),
                author_id=chance.choice(["", "a", "b", "c", "d"]),
                polarity=float32(chance.uniform(-1, 1)),
                credibility=float32(trust),
                engagement_weight=float32(chance.choice([0.1, 10.0, chance.uniform(0.1, 10.0)])),
                text=f"text {len(self.posts)}",
            )
            self.posts.append(post)
        self._now_ms += seconds * 1000


blocks = st.tuples(
    st.sampled_from(["quiet", "surge", "surge", "late", "late", "edge", "again", "hole", "noise", "shuffle"]),
    st.integers(1, 40),
    st.integers(1, 90),
)
all_rules = st.builds(
    Rules,
    window_ms=st.sampled_from([60_000, 300_000]),
    span_ms=st.sampled_from([3_660_000, 7_200_000]),
    lateness_ms=st.sampled_from([0, 5_000, 45_000]),
    min_credibility=st.just(float32(0.3)),
    baseline_days=st.sampled_from([1, 7]),
    baseline_windows=st.sampled_from([1, 12]),
    spike_threshold=st.sampled_from([2.0, 5.0]),
    spike_mentions=st.sampled_from([2, 10]),
    cooldown_ms=st.sampled_from([10_000, 60_000, 300_000]),
)


@settings(deadline=None, max_examples=150)
@given(
    all_rules,
    st.integers(0, 2**32),
    st.integers(0, 30),
    st.lists(blocks, min_size=1, max_size=8),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
def test_a_difficult_stream(
    rules: Rules, seed: int, quiet: int, stream: list[tuple[str, int, int]], sizes: list[int]
) -> None:
    crowd = Crowd(seed, rules.span_ms)
    crowd.quiet(quiet, MINUTE)
    for block, number, seconds in stream:
        getattr(crowd, block)(number, seconds)
    watched = asyncio.run(watch(crowd.posts, sizes, SYMBOLS, rules))
    assert watched.comparison.differences == []


def at(seconds: float, number: int) -> Post:
    return Post(START + round(seconds * 1000), f"at:{number}", "twitter", "BTC", "a", 0.5, 0.75, 1.0)


# A quarter of an hour to compare with.
QUIET = [at(60 * number, number) for number in range(15)]


async def test_a_window_that_is_corrected_two_hours_later_is_still_marked_with_its_spike() -> None:
    surge = [at(900 + number, 100 + number) for number in range(30)]
    after = [at(990 + 60 * number, 200 + number) for number in range(125)]
    # The first window without a mention of the surge, which is on for a cooldown yet.
    late = [at(1245, 999)]
    watched = await watch([*QUIET, *surge, *after, *late], [1], ["BTC"], Rules())
    assert watched.comparison.differences == []
    corrected = watched.oracle.windows[START + 1_200_000, "BTC"]
    assert (corrected.revision, corrected.viral_spike) == (1, True)


async def test_two_surges_that_late_posts_join_are_over_when_the_second_is() -> None:
    first = [at(900 + number, 100 + number) for number in range(30)]
    second = [at(1310 + number, 200 + number) for number in range(30)]
    after = [at(1400 + 60 * number, 300 + number) for number in range(12)]
    between = [at(1000 + number / 10, 400 + number) for number in range(20)]
    watched = await watch([*QUIET, *first, *second, *after, *between], [1], ["BTC"], Rules())
    assert watched.comparison.differences == []
    over_ms = {spike.resolved_at_ms for spike in watched.oracle.spikes}
    assert len(watched.oracle.spikes) == 2
    assert len(over_ms) == 1


@pytest.fixture(scope="module")
def export(recorded_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The first posts of the recording through the whole system, and what the oracle says of what came out."""
    folder = tmp_path_factory.mktemp("replay")
    head = folder / "head.jsonl"
    with gzip.open(recorded_data / "posts" / "twitter-btc-2019-10-15_19.jsonl.gz") as posts:
        head.write_bytes(b"".join(itertools.islice(posts, RECORDED_POSTS)))
    exported = folder / "export"
    command = [str(SENTIMESH), "replay", str(head), "--model", "vader", "--export", str(exported)]
    subprocess.run(command, check=True, capture_output=True)
    return Export.compare(exported, DEFAULT_SYMBOLS)


@pytest.mark.recorded
@REPLAYED
def test_a_recording_through_the_whole_system(export: Export) -> None:
    assert export.windows.differences == []
    assert export.spikes.differences == []
    assert export.windows.compared > 5_000
    assert export.spikes.compared > 20


@pytest.mark.recorded
@REPLAYED
async def test_the_live_scores_of_a_recording(export: Export) -> None:
    watched = await watch(export.posts, [1, 50, 7], DEFAULT_SYMBOLS, Rules())
    assert watched.comparison.differences == []
    assert watched.live_scores > 1_000


@pytest.mark.recorded
@REPLAYED
async def test_a_recording_that_arrives_out_of_order(export: Export) -> None:
    chance = random.Random(4)
    delays_ms = [chance.choice([0, 0, 0, 20_000, 300_000, 2_700_000]) * chance.random() for _ in export.posts]
    arrivals = sorted(zip(export.posts, delays_ms, strict=True), key=lambda pair: pair[0].timestamp_ms + pair[1])
    watched = await watch([post for post, _ in arrivals], [1, 50, 7], DEFAULT_SYMBOLS, Rules())
    assert watched.comparison.differences == []
    assert sum(window.revision > 0 for window in watched.oracle.windows.values()) > 200


async def test_a_late_post_is_known_to_a_window_that_closes_in_the_same_batch() -> None:
    posts = [*(at(number, number) for number in range(4)), *(at(310 + number, 10 + number) for number in range(5))]
    posts += [at(299, 20), at(606, 21)]
    for sizes in ([1], [len(posts)]):
        watched = await watch(posts, sizes, ["BTC"], Rules(baseline_windows=1))
        assert watched.comparison.differences == []
        # Five posts against the five that were known of the window before.
        assert watched.oracle.windows[START + 300_000, "BTC"].volume_ratio == 1.0
