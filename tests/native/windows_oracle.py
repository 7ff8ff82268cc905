"""The windows' rules, one by one, over a plain list of posts: slow and obvious, to hold the native store against."""

import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sentimesh.native import SlideCount, WindowStats
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost

START = 1_700_000_100_000  # a multiple of 300 s
MINUTE = 60_000


def message(post_id: str, timestamp_ms: int, symbol: str = "BTC", **fields: Any) -> bytes:
    """A serialized ScoredPost; further fields of either message by name."""
    inner = {key: fields.pop(key) for key in ("platform", "author_id", "text") if key in fields}
    post = SocialPost(post_id=post_id, timestamp_ms=timestamp_ms, symbol=symbol, **{"platform": "twitter", **inner})
    values = {"polarity": 0.5, "credibility_score": 0.5, "engagement_weight": 1.0, **fields}
    return ScoredPost(post=post, **values).SerializeToString()


def as_tuple(event: WindowStats | SlideCount) -> tuple[Any, ...]:
    if isinstance(event, SlideCount):
        return (
            "slide",
            event.symbol,
            event.end_ms,
            event.mention_count,
            event.baseline_rate,
            event.platform_counts,
            event.late,
        )
    return (
        "window",
        event.symbol,
        event.start_ms,
        event.end_ms,
        event.revision,
        round(event.polarity, 9) + 0.0,
        round(event.credibility, 9) + 0.0,
        event.post_count,
        event.unique_authors,
        event.platform_counts,
    )


@dataclass
class Recomputed:
    """Stands beside a WindowStore and is asked the same."""

    symbols: list[str]
    window_ms: int
    span_ms: int
    allowed_lateness_ms: int
    slide_ms: int
    baseline_ms: int
    min_mentions: int
    start_ms: int | None
    history_start_ms: int | None
    slice_ms: int = 10_000
    spike_ms: int = MINUTE
    clock: int | None = None
    history: int = 0
    first_window: int = 0
    next_window: int = 0
    kept: int = 0
    posts: list[ScoredPost] = field(default_factory=list)
    revisions: Counter[tuple[int, str]] = field(default_factory=Counter)
    corrected: set[tuple[int, str]] = field(default_factory=set)

    def window_of(self, time_ms: int) -> int:
        return time_ms // self.window_ms * self.window_ms

    def between(self, symbol: str, start: int, end: int) -> list[ScoredPost]:
        start = max(start, self.kept)
        return [p for p in self.posts if p.post.symbol == symbol and start <= p.post.timestamp_ms < end]

    def window(self, symbol: str, start: int, revision: int) -> tuple[Any, ...]:
        posts = self.between(symbol, start, start + self.window_ms)
        weights = [Fraction(p.engagement_weight) * Fraction(p.credibility_score) for p in posts]
        weighted = sum((w * Fraction(p.polarity) for w, p in zip(weights, posts, strict=True)), Fraction(0))
        polarity = float(weighted / sum(weights)) if sum(weights) else 0.0
        credibility = math.fsum(p.credibility_score for p in posts) / len(posts) if posts else 0.0
        authors = {(p.post.platform, p.post.author_id) for p in posts if p.post.author_id}
        platforms = dict(Counter(p.post.platform for p in posts))
        end = start + self.window_ms
        means = (round(polarity, 9) + 0.0, round(credibility, 9) + 0.0)
        return ("window", symbol, start, end, revision, *means, len(posts), len(authors), platforms)

    def slides(self, end: int, symbols: list[str], *, late: bool = False) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        start = end - self.spike_ms
        history = max(start - self.baseline_ms, self.history, self.kept)
        if start - history < min(10 * MINUTE, self.baseline_ms):
            return found
        for symbol in symbols:
            posts = self.between(symbol, start, end)
            if len(posts) >= self.min_mentions:
                before = len(self.between(symbol, history, start))
                rate = before * self.spike_ms / (start - history)
                platforms = dict(Counter(p.post.platform for p in posts))
                found.append(("slide", symbol, end, len(posts), rate, platforms, late))
        return found

    def late_slides(self, post: SocialPost) -> list[tuple[Any, ...]]:
        """Every sliding window there is that has ended and holds the post's slice."""
        slice_start = post.timestamp_ms // self.slice_ms * self.slice_ms
        assert self.clock is not None
        found = []
        for end in range(slice_start // self.slide_ms * self.slide_ms, self.clock + 1, self.slide_ms):
            if end - self.spike_ms <= slice_start < end <= self.clock:
                found += self.slides(end, [post.symbol], late=True)
        return found

    def corrections(self, before: float) -> list[tuple[Any, ...]]:
        found = []
        for start, symbol in sorted(key for key in self.corrected if key[0] < before):
            self.corrected.remove((start, symbol))
            self.revisions[start, symbol] += 1
            found.append(self.window(symbol, start, self.revisions[start, symbol]))
        return found

    def move(self, to: int) -> list[tuple[Any, ...]]:
        if self.clock is None:
            self.clock = to
            known = to if self.history_start_ms is None else min(to, self.history_start_ms)
            self.history = known // self.slice_ms * self.slice_ms
            first = self.window_of(to) if self.start_ms is None else -self.window_of(-self.start_ms)
            self.first_window = self.next_window = first
        if to < self.clock:
            return []
        due: list[tuple[int, int, Any]] = [
            (time_ms, 0, None)
            for time_ms in range((self.clock // self.slide_ms + 1) * self.slide_ms, to + 1, self.slide_ms)
        ]
        while self.next_window + self.window_ms + self.allowed_lateness_ms <= to:
            due.append((self.next_window + self.window_ms + self.allowed_lateness_ms, 1, self.next_window))
            self.next_window += self.window_ms
        events = []
        for time_ms, kind, start in sorted(due):
            if kind == 0:
                events += self.slides(time_ms, self.symbols)
            else:
                events += self.corrections(math.inf)
                events += [self.window(symbol, start, 0) for symbol in self.symbols]
        self.clock = to
        events += self.corrections(self.window_of(to - self.span_ms))
        self.kept = max(self.kept, self.window_of(to - self.span_ms))
        return events

    def follow(self, to: int) -> list[tuple[Any, ...]]:
        old = self.start_ms if self.clock is None else self.clock
        events = []
        if old is not None and to - old > self.span_ms:
            events = self.move(old + self.span_ms)
            self.first_window = max(self.first_window, self.window_of(to))
            self.next_window = max(self.next_window, self.window_of(to))
            self.history = to // self.slice_ms * self.slice_ms
        return events + self.move(to)

    def add(self, scored: ScoredPost) -> tuple[str, list[tuple[Any, ...]]]:
        post, clock = scored.post, self.clock
        assert clock is not None
        if post.symbol not in self.symbols:
            return "untracked", []
        if scored.credibility_score < 0.25:
            return "low_credibility", []
        if post.timestamp_ms < clock - self.span_ms:
            return "late", []
        if any((p.post.post_id, p.post.symbol) == (post.post_id, post.symbol) for p in self.posts
               if p.post.timestamp_ms >= self.kept):  # fmt: skip
            return "duplicate", []
        self.posts.append(scored)
        start = self.window_of(post.timestamp_ms)
        if self.first_window <= start < self.next_window:
            self.corrected.add((start, post.symbol))
        return "accepted", self.late_slides(post)

    def add_batch(self, batch: list[bytes], clock: int | None) -> tuple[list[str], list[tuple[int, Any]]]:
        statuses, events = [], []
        if clock is not None:
            events += [(0, event) for event in self.move(clock)]
        for index, data in enumerate(batch):
            scored = ScoredPost.FromString(data)
            if clock is None:
                events += [(index, event) for event in self.follow(scored.post.timestamp_ms)]
            elif self.clock is not None and scored.post.timestamp_ms > self.clock + 5 * MINUTE:
                statuses.append("malformed")
                continue
            status, slides = self.add(scored)
            statuses.append(status)
            events += [(index, slide) for slide in slides]
        events += [(max(0, len(batch) - 1), event) for event in self.corrections(math.inf)]
        return statuses, events
