"""What has to come out of a stream of scored posts, recomputed slowly and plainly, to hold the aggregator against.

Written from the specification, SPEC-NOTES 2, 6, 7 and 8 and docs/decisions.md; nothing of the aggregator is used. Every
window, slide, mean and surge is read anew from the list of posts (or of windows, or of slides) each time it is needed.
The clock is the posts' own (event clock).
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SLICE_MS = 10_000
# A spike needs ten minutes to compare with.
LEAST_HISTORY_MS = 600_000
SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration, the specification's values."""

    window_ms: int = 300_000
    span_ms: int = 2 * HOUR_MS
    lateness_ms: int = 5_000
    min_posts: int = 3
    min_credibility: float = 0.3
    baseline_days: int = 7
    baseline_windows: int = 12
    spike_window_ms: int = 60_000
    slide_ms: int = 10_000
    spike_threshold: float = 5.0
    spike_mentions: int = 10
    cooldown_ms: int = 300_000


@dataclass(frozen=True, slots=True, order=True)
class Post:
    """A scored post; in the order of time."""

    timestamp_ms: int
    post_id: str
    platform: str = field(compare=False)
    symbol: str = field(compare=False)
    author_id: str = field(compare=False)
    polarity: float = field(compare=False)
    credibility: float = field(compare=False)
    engagement_weight: float = field(compare=False)
    text: str = field(compare=False, default="")
    source_url: str = field(compare=False, default="")

    @property
    def weight(self) -> float:
        return self.engagement_weight * self.credibility

    @classmethod
    def read(cls, line: str) -> Post:
        """Read a line of scored.jsonl."""
        scored = json.loads(line)
        post = scored["post"]
        return cls(
            timestamp_ms=int(post["timestamp_ms"]),
            post_id=post["post_id"],
            platform=post["platform"],
            symbol=post["symbol"],
            author_id=post["author_id"],
            polarity=float32(scored["polarity"]),
            credibility=float32(scored["credibility_score"]),
            engagement_weight=float32(scored["engagement_weight"]),
            text=post["text"],
            source_url=post["source_url"],
        )


def float32(value: float) -> float:
    """Return the number that the contract's 32 bits hold, of which JSON has the shortest decimals."""
    (nearest,) = struct.unpack("f", struct.pack("f", value))
    return float(nearest)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The fields of SentimentAggregate."""

    symbol: str
    window_start_ms: int
    window_end_ms: int
    polarity: float
    volume_ratio: float
    credibility: float
    social_sentiment_score: float
    directional_score: float
    post_count: int
    unique_authors: int
    platform_breakdown: dict[str, int]
    viral_spike: bool
    spike_ratio: float
    baseline_ready: bool
    insufficient_data: bool
    revision: int
    live: bool
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The fields of SamplePost, but for the counts of engagement."""

    post_id: str
    platform: str
    text: str
    source_url: str
    engagement_weight: float
    polarity: float
    timestamp_ms: int


@dataclass(slots=True)
class Spike:
    """The fields of ViralSpike."""

    symbol: str
    spike_ratio: float
    mention_count: int
    baseline_rate: float
    detected_at_ms: int
    dominant_platform: str
    platform_breakdown: dict[str, int]
    sample_posts: list[Sample]
    resolved_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Mean:
    """Posts a window in the days before, as far as known at some moment; ready when enough windows are."""

    posts: float
    ready: bool


def scores(polarity: float, volume_ratio: float, credibility: float) -> tuple[float, float]:
    """The specification's score and the directional one (SPEC-NOTES 2)."""
    multiplier = max(min(1.0 + (volume_ratio - 1.0) * 0.25, 1.5), 0.5)
    raw = (0.60 * ((polarity + 1) / 2) + 0.25 * min(volume_ratio / 3.0, 1.0) + 0.15 * credibility) * multiplier
    clipped = max(-1.0, min(1.0, polarity * multiplier * credibility))
    return round(max(0.0, min(1.0, raw)), 4), round((clipped + 1) / 2, 4)


class Oracle:
    """Takes posts one by one, in the order in which they came; ``flush`` where a batch of them ends.

    Late posts are taken at once; a closed window that they change is made again before another one closes, at the
    latest at the end of the batch. ``windows`` has the last of each, by (start, symbol); ``spikes`` the alerts in the
    order in which they were given.
    """

    def __init__(self, symbols: Iterable[str], rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.symbols = sorted(symbols)
        self.windows: dict[tuple[int, str], Aggregate] = {}
        self.spikes: list[Spike] = []
        self.clock_ms: int | None = None
        self._posts: dict[str, list[Post]] = {symbol: [] for symbol in self.symbols}
        self._held: dict[tuple[str, str], int] = {}
        # Windows from the first one (the stream's, or after a hole) up to the next one are closed.
        self._first_window_ms = self._next_window_ms = 0
        self._history_ms = 0
        # Posts of each closed window, by start, as last made.
        self._counts: dict[str, dict[int, int]] = {symbol: {} for symbol in self.symbols}
        self._means: dict[tuple[int, str], Mean] = {}
        self._changed: set[tuple[int, str]] = set()
        # Ends and ratios of the sliding windows over the threshold, in the order in which they were found.
        self._over: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)

    def take(self, post: Post) -> str:
        """Take a post and say what became of it."""
        self._follow(post.timestamp_ms)
        status = self._judge(post)
        if status == "accepted":
            insort(self._posts[post.symbol], post)
            self._held[post.symbol, post.post_id] = post.timestamp_ms
            self._look_again(post)
            start_ms = self._window_of(post.timestamp_ms)
            if self._first_window_ms <= start_ms < self._next_window_ms:
                self._changed.add((start_ms, post.symbol))
        return status

    def flush(self) -> None:
        """Make the windows again that late posts have changed; say of alerts whether they are over."""
        self._make_again(math.inf)
        for symbol in self._over:
            for first_ms, last_ms, _ in self._surges(symbol):
                if self._clock() < last_ms + self.rules.cooldown_ms:
                    continue
                for spike in self.spikes:
                    if spike.symbol == symbol and first_ms <= spike.detected_at_ms <= last_ms:
                        # The first sliding window that was under the threshold again.
                        spike.resolved_at_ms = last_ms + self.rules.slide_ms

    def finish(self) -> None:
        """Close the window that the clock is in: the recording ends."""
        if self.clock_ms is not None:
            end_ms = self._window_of(self.clock_ms) + self.rules.window_ms
            self._pass(end_ms + self.rules.lateness_ms)
            self.flush()

    def live(self, symbol: str) -> Aggregate:
        """The trailing window of a symbol now, its end rounded up to a whole slice."""
        now_ms = self._clock()
        end_ms = (now_ms // SLICE_MS + 1) * SLICE_MS
        ratio = self._ratio_on(symbol, now_ms, end_ms)
        return self._aggregate(
            symbol, end_ms - self.rules.window_ms, self._mean(symbol), ratio, live=True, updated_at_ms=now_ms
        )

    # The clock

    def _clock(self) -> int:
        assert self.clock_ms is not None
        return self.clock_ms

    def _window_of(self, time_ms: int) -> int:
        return time_ms // self.rules.window_ms * self.rules.window_ms

    def _follow(self, time_ms: int) -> None:
        if self.clock_ms is None:
            self._start(time_ms)
        elif time_ms > self.clock_ms + self.rules.span_ms:
            # A hole in the recording: silence is believed for the span, then all starts anew.
            self._pass(self.clock_ms + self.rules.span_ms)
            self._start(time_ms)
        elif time_ms > self.clock_ms:
            self._pass(time_ms)
        # What cannot change any more is as it is.
        self._make_again(self._kept_ms())

    def _start(self, time_ms: int) -> None:
        self.clock_ms = time_ms
        self._history_ms = time_ms // SLICE_MS * SLICE_MS
        self._first_window_ms = self._next_window_ms = self._window_of(time_ms)

    def _kept_ms(self) -> int:
        """Windows from here on are held whole."""
        return self._window_of(self._clock() - self.rules.span_ms)

    def _pass(self, to_ms: int) -> None:
        """Let time pass: slides and windows in the order in which they are due, slides first."""
        rules = self.rules
        slides = range((self._clock() // rules.slide_ms + 1) * rules.slide_ms, to_ms + 1, rules.slide_ms)
        closing_ms = rules.window_ms + rules.lateness_ms
        starts = range(self._next_window_ms, to_ms - closing_ms + 1, rules.window_ms)
        due = [(end_ms, False) for end_ms in slides] + [(start_ms + closing_ms, True) for start_ms in starts]
        for time_ms, closes in sorted(due):
            if closes:
                self._make_again(math.inf)
            for symbol in self.symbols:
                if closes:
                    self._close(time_ms - closing_ms, symbol)
                else:
                    self._look(symbol, time_ms)
            if closes:
                self._next_window_ms += rules.window_ms
        self.clock_ms = to_ms

    def _judge(self, post: Post) -> str:
        if post.symbol not in self._posts:
            return "untracked"
        if post.credibility < self.rules.min_credibility:
            return "low_credibility"
        if post.timestamp_ms < self._clock() - self.rules.span_ms:
            return "late"
        if self._held.get((post.symbol, post.post_id), -1) >= self._kept_ms():
            return "duplicate"
        return "accepted"

    # Tumbling windows

    def _between(self, symbol: str, start_ms: int, end_ms: int) -> list[Post]:
        posts = self._posts[symbol]
        times = (bisect_left(posts, time_ms, key=lambda post: post.timestamp_ms) for time_ms in (start_ms, end_ms))
        return posts[slice(*times)]

    def _close(self, start_ms: int, symbol: str) -> None:
        """Close a window; whatever comes later is measured against the mean of now."""
        self._means[start_ms, symbol] = self._mean(symbol, start_ms)
        self._make(start_ms, symbol, revision=0)

    def _make_again(self, before_ms: float) -> None:
        for start_ms, symbol in sorted(key for key in self._changed if key[0] < before_ms):
            self._changed.remove((start_ms, symbol))
            self._make(start_ms, symbol, self.windows[start_ms, symbol].revision + 1)

    def _make(self, start_ms: int, symbol: str, revision: int) -> None:
        end_ms = start_ms + self.rules.window_ms
        self.windows[start_ms, symbol] = made = self._aggregate(
            symbol,
            start_ms,
            self._means[start_ms, symbol],
            self._ratio_on(symbol, start_ms, end_ms),
            revision=revision,
            updated_at_ms=end_ms + self.rules.lateness_ms,
        )
        self._counts[symbol][start_ms] = made.post_count

    def _mean(self, symbol: str, start_ms: int | None = None) -> Mean:
        """Over the closed windows of the seven days before the one that starts there, by default the last closed."""
        known = self._counts[symbol]
        if start_ms is None:
            start_ms = max(known, default=0)
        counts = [count for at_ms, count in known.items() if at_ms > start_ms - self.rules.baseline_days * DAY_MS]
        mean = math.fsum(counts) / len(counts) if counts else 0.0
        return Mean(mean, ready=len(counts) >= self.rules.baseline_windows)

    def _aggregate(
        self,
        symbol: str,
        start_ms: int,
        mean: Mean,
        spike_ratio: float,
        *,
        updated_at_ms: int,
        revision: int = 0,
        live: bool = False,
    ) -> Aggregate:
        end_ms = start_ms + self.rules.window_ms
        posts = self._between(symbol, start_ms, end_ms)
        weight = math.fsum(post.weight for post in posts)
        polarity = math.fsum(post.polarity * post.weight for post in posts) / weight if weight else 0.0
        credibility = math.fsum(post.credibility for post in posts) / len(posts) if posts else 0.0
        volume_ratio = 1.0
        if mean.ready:
            volume_ratio = len(posts) / (mean.posts if mean.posts > 0 else 1.0)
        enough = len(posts) >= self.rules.min_posts
        score, directional = scores(polarity, volume_ratio, credibility) if enough else (0.5, 0.5)
        return Aggregate(
            symbol=symbol,
            window_start_ms=start_ms,
            window_end_ms=end_ms,
            polarity=polarity,
            volume_ratio=volume_ratio,
            credibility=credibility,
            social_sentiment_score=score,
            directional_score=directional,
            post_count=len(posts),
            unique_authors=len({(post.platform, post.author_id) for post in posts if post.author_id}),
            platform_breakdown=dict(Counter(post.platform for post in posts)),
            viral_spike=spike_ratio > 0,
            spike_ratio=spike_ratio,
            baseline_ready=mean.ready,
            insufficient_data=not enough,
            revision=revision,
            live=live,
            updated_at_ms=updated_at_ms,
        )

    # Spikes

    def _look_again(self, post: Post) -> None:
        """Look at the sliding windows that ended before this post of theirs came."""
        slide_ms = self.rules.slide_ms
        first_ms = (post.timestamp_ms // slide_ms + 1) * slide_ms
        last_ms = min(post.timestamp_ms + self.rules.spike_window_ms, self._clock())
        for end_ms in range(first_ms, last_ms + 1, slide_ms):
            self._look(post.symbol, end_ms)

    def _look(self, symbol: str, end_ms: int) -> None:
        """Look at a sliding window: is it over the threshold, and is that to be alerted?"""
        rules = self.rules
        start_ms = end_ms - rules.spike_window_ms
        posts = self._between(symbol, start_ms, end_ms)
        since_ms = max(start_ms - HOUR_MS, self._history_ms, self._kept_ms())
        if len(posts) < rules.spike_mentions or start_ms - since_ms < LEAST_HISTORY_MS:
            return
        before = len(self._between(symbol, since_ms, start_ms))
        rate = before * rules.spike_window_ms / (start_ms - since_ms) if before else 1.0
        ratio = len(posts) / rate
        if ratio < rules.spike_threshold:
            return
        self._over[symbol].append((end_ms, ratio))
        alerts = [spike.detected_at_ms for spike in self.spikes if spike.symbol == symbol]
        if any(abs(end_ms - detected_ms) < rules.cooldown_ms for detected_ms in alerts):
            return
        platforms = dict(Counter(post.platform for post in posts))
        self.spikes.append(
            Spike(
                symbol=symbol,
                spike_ratio=ratio,
                mention_count=len(posts),
                baseline_rate=rate,
                detected_at_ms=end_ms,
                dominant_platform=min(platforms, key=lambda name: (-platforms[name], name)),
                platform_breakdown=platforms,
                sample_posts=[
                    Sample(*(getattr(post, f.name) for f in dataclasses.fields(Sample)))
                    for post in sorted(posts, key=lambda post: -post.engagement_weight)[:SAMPLES]
                ],
            )
        )

    def _surges(self, symbol: str) -> list[tuple[int, int, float]]:
        """Ends of the first and last sliding window over the threshold, and the largest ratio, of each surge.

        One ends when none is over the threshold for a whole cooldown.
        """
        surges: list[tuple[int, int, float]] = []
        for end_ms, ratio in sorted(self._over[symbol]):
            if surges and end_ms < surges[-1][1] + self.rules.cooldown_ms:
                first_ms, _, largest = surges[-1]
                surges[-1] = (first_ms, end_ms, max(largest, ratio))
            else:
                surges.append((end_ms, end_ms, ratio))
        return surges

    def _ratio_on(self, symbol: str, start_ms: int, end_ms: int) -> float:
        """The largest ratio of the surges that were on in [start, end); 0.0 if none was.

        A surge is on from the start of its first window until the cooldown after its last.
        """
        rules = self.rules
        return max(
            (
                ratio
                for first_ms, last_ms, ratio in self._surges(symbol)
                if first_ms - rules.spike_window_ms < end_ms and last_ms + rules.cooldown_ms > start_ms
            ),
            default=0.0,
        )
