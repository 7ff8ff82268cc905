"""The most engaged posts of the last minutes, for those who look at a spike."""

from __future__ import annotations

from collections import defaultdict

from sentimesh.pb.pipeline_pb2 import SamplePost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost

SAMPLES = 5
# Slices held a symbol: half an hour of slices of ten seconds, more than an outage delays a post and a spike with it.
SLICES = 180


def _rank(post: ScoredPost) -> tuple[float, int, str]:
    return -post.engagement_weight, post.post.timestamp_ms, post.post.post_id


class EngagedPosts:
    """Of every slice of time and symbol the five most engaged posts, so that any window of slices can be asked for."""

    def __init__(self, slice_ms: int) -> None:
        self._slice_ms = slice_ms
        self._slices: defaultdict[str, dict[int, list[ScoredPost]]] = defaultdict(dict)

    def add(self, scored: ScoredPost) -> None:
        """Take a post that counts."""
        slices = self._slices[scored.post.symbol]
        number = scored.post.timestamp_ms // self._slice_ms
        best = slices.get(number)
        if best is None:
            best = slices[number] = []
            if len(slices) > SLICES:
                del slices[min(slices)]
        elif len(best) == SAMPLES and _rank(scored) > _rank(best[-1]):
            return
        best.append(scored)
        best.sort(key=_rank)
        del best[SAMPLES:]

    def top(self, symbol: str, start_ms: int, end_ms: int) -> list[SamplePost]:
        """Return the five most engaged posts of [start, end), whole slices; the older first of equal ones."""
        slices = self._slices.get(symbol, {})
        numbers = range(start_ms // self._slice_ms, end_ms // self._slice_ms)
        found = sorted((post for number in numbers for post in slices.get(number, ())), key=_rank)
        return [_sample(scored) for scored in found[:SAMPLES]]


def _sample(scored: ScoredPost) -> SamplePost:
    post = scored.post
    return SamplePost(
        post_id=post.post_id,
        platform=post.platform,
        text=post.text,
        source_url=post.source_url,
        engagement=post.engagement,
        engagement_weight=scored.engagement_weight,
        polarity=scored.polarity,
        timestamp_ms=post.timestamp_ms,
    )
