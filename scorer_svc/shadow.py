"""A second model that scores a sample of the posts in the background, to be compared with the one that counts."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from scorer_svc.ladder import ModelLadder
from scorer_svc.sentiment import Sentiment

# Posts that wait for the second model; what comes then is not compared.
POSTS_HELD = 256
BATCH = 16
SUMMARY_SECONDS = 60.0


def in_sample(post_id: str, share: float) -> bool:
    """Say whether a post is in the sample; of all ids ``share`` (0.0 to 1.0) are, the same ones everywhere."""
    digest = hashlib.blake2b(post_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


@dataclass(frozen=True, slots=True)
class Comparison:
    """One post by both models; ``difference`` is that of the polarities, 0.0 to 2.0."""

    model_version: str
    shadow_version: str
    same_label: bool
    difference: float


@dataclass(slots=True)
class Agreement:
    """What two models said of ``posts`` posts."""

    posts: int = 0
    same_label: int = 0
    difference_sum: float = 0.0

    def add(self, comparison: Comparison) -> None:
        """Take one more in."""
        self.posts += 1
        self.same_label += comparison.same_label
        self.difference_sum += comparison.difference

    @property
    def same_label_share(self) -> float:
        """Share of the posts with the same label, 0.0 to 1.0."""
        return self.same_label / self.posts

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference of the polarities, 0.0 to 2.0."""
        return self.difference_sum / self.posts


@dataclass(frozen=True, slots=True)
class _Post:
    text: str
    model_version: str
    sentiment: Sentiment


class Shadow:
    """Compares a second model with the one that scores; never waited for, so posts are left out when it is slower."""

    def __init__(
        self,
        ladder: ModelLadder,
        share: float,
        *,
        on_comparison: Callable[[Comparison], None] = lambda _comparison: None,
        on_left_out: Callable[[int], None] = lambda _posts: None,
        on_summary: Callable[[str, str, Agreement], None] = lambda _model, _shadow, _agreement: None,
        posts_held: int = POSTS_HELD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ladder``: the second model alone. ``share``: of the posts, 0.0 to 1.0.

        Called on the event loop: ``on_comparison`` for each post, ``on_left_out(posts)`` for those of the sample that
        found no room or that the second model failed on, ``on_summary(model_version, shadow_version, agreement)`` about
        once a minute and at the end, for each pair of versions compared since.
        """
        self._ladder = ladder
        self._share = share
        self._on_comparison = on_comparison
        self._on_left_out = on_left_out
        self._on_summary = on_summary
        self._clock = clock
        self._posts: asyncio.Queue[_Post] = asyncio.Queue(posts_held)
        self._agreements: dict[tuple[str, str], Agreement] = {}
        self._summarised = clock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compare from now on."""
        self._task = asyncio.create_task(self._work(), name="shadow model")

    def offer(self, post_id: str, text: str, model_version: str, sentiment: Sentiment) -> None:
        """Compare this post if it is in the sample and there is room."""
        if not in_sample(post_id, self._share):
            return
        try:
            self._posts.put_nowait(_Post(text, model_version, sentiment))
        except asyncio.QueueFull:
            self._on_left_out(1)

    async def close(self) -> None:
        """End; what still waits is not compared."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._ladder.close()
        self._summarise()

    async def _work(self) -> None:
        while True:
            posts = [await self._posts.get()]
            while len(posts) < BATCH and not self._posts.empty():
                posts.append(self._posts.get_nowait())
            await self._compare(posts)
            if self._clock() - self._summarised >= SUMMARY_SECONDS:
                self._summarise()

    async def _compare(self, posts: list[_Post]) -> None:
        try:
            shadow_version, sentiments = await self._ladder.score([post.text for post in posts])
        except Exception:
            # The ladder has reported it, whatever it was.
            self._on_left_out(len(posts))
            return
        for post, other in zip(posts, sentiments, strict=True):
            first = post.sentiment
            comparison = Comparison(
                post.model_version, shadow_version, first.label == other.label, abs(first.polarity - other.polarity)
            )
            self._agreements.setdefault((post.model_version, shadow_version), Agreement()).add(comparison)
            self._on_comparison(comparison)

    def _summarise(self) -> None:
        for (model_version, shadow_version), agreement in self._agreements.items():
            self._on_summary(model_version, shadow_version, agreement)
        self._agreements.clear()
        self._summarised = self._clock()
