"""The scorer stage: the best model that answers, and the engagement weight."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scorer_svc.engagement import engagement_weight
from scorer_svc.ladder import ModelLadder
from scorer_svc.sentiment import Sentiment
from scorer_svc.shadow import Shadow
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost
from sentimesh.stage import Delivery, Forward, Outcome, Reject, Stage

SYMBOL = re.compile(r"[A-Z0-9]{1,20}")


def _fault(message: FilteredPost) -> str | None:
    """Say why a post cannot be scored; None when it can."""
    post = message.post
    if not post.post_id:
        return "the filtered post has no post_id"
    if not SYMBOL.fullmatch(post.symbol):
        return f"post {post.post_id} has the symbol {post.symbol!r}, which does not match ^[A-Z0-9]{{1,20}}$"
    # Written so that NaN fails.
    if not 0.0 <= message.credibility_score <= 1.0:
        return f"post {post.post_id} has a credibility_score of {message.credibility_score}, not 0.0 to 1.0"
    return None


class ScorerStage(Stage[FilteredPost]):
    """Scores posts with the best model in service; each post says which one scored it."""

    def __init__(self, models: ModelLadder, shadow: Shadow | None = None) -> None:
        """``shadow``: a second model to compare with; None compares nothing."""
        self.models = models
        self._shadow = shadow

    async def start(self) -> None:
        """Load a model, so that the first batch need not wait for it. Raises ModelError."""
        await self.models.start()
        if self._shadow is not None:
            self._shadow.start()

    async def close(self) -> None:
        """Give back the models; the stage cannot score after this."""
        if self._shadow is not None:
            await self._shadow.close()
        await self.models.close()

    async def process(self, batch: Sequence[Delivery[FilteredPost]]) -> Sequence[Sequence[Outcome]]:
        """Return a ScoredPost or a rejection each. Raises the last model's error when none scored the batch."""
        faults = [_fault(delivery.message) for delivery in batch]
        posts = [delivery.message for delivery, fault in zip(batch, faults, strict=True) if fault is None]
        version, sentiments = await self.models.score([filtered.post.text for filtered in posts])
        scored = iter([_forward(*pair, version) for pair in zip(posts, sentiments, strict=True)])
        if self._shadow is not None:
            for filtered, sentiment in zip(posts, sentiments, strict=True):
                self._shadow.offer(filtered.post.post_id, filtered.post.text, version, sentiment)
        return [[next(scored) if fault is None else Reject(fault)] for fault in faults]

    async def tick(self) -> Sequence[Outcome]:
        """Return nothing: the scorer does nothing by the clock."""
        return ()

    def session(self) -> ScorerStage:
        """Return a stage of the same models, for they keep nothing of a post that another post could see.

        What a client sends for a try-out is not compared with the second model.
        """
        return ScorerStage(self.models)


def _forward(filtered: FilteredPost, sentiment: Sentiment, model_version: str) -> Forward:
    post = filtered.post
    scored = ScoredPost(
        post=post,
        polarity=sentiment.polarity,
        confidence=sentiment.confidence,
        credibility_score=filtered.credibility_score,
        engagement_weight=engagement_weight(post.engagement),
        model_version=model_version,
    )
    return Forward(scored, post.symbol, post.post_id)
