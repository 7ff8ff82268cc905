"""The scorer stage: the best model that answers, and the engagement weight."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence

from scorer_svc.engagement import engagement_weight
from scorer_svc.sentiment import ModelError, Sentiment, SentimentModel
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
    """Scores posts with the first of its models that answers; each post says which one scored it."""

    def __init__(
        self,
        models: Sequence[SentimentModel],
        *,
        on_model_error: Callable[[str, str], None] = lambda _model, _error_type: None,
        on_inference: Callable[[str, int, float], None] = lambda _model, _batch_size, _seconds: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``models``: at least one, the preferred one first.

        Called on the event loop: ``on_model_error(model_version, error_type)`` for each failure,
        ``on_inference(model_version, batch_size, seconds)`` for each batch scored.
        """
        self._models = tuple(models)
        self._on_model_error = on_model_error
        self._on_inference = on_inference
        self._clock = clock

    async def process(self, batch: Sequence[Delivery[FilteredPost]]) -> Sequence[Sequence[Outcome]]:
        """Return a ScoredPost or a rejection each. Raises the last model's ModelError when none scored the batch."""
        faults = [_fault(delivery.message) for delivery in batch]
        posts = [delivery.message for delivery, fault in zip(batch, faults, strict=True) if fault is None]
        version, sentiments = await self._score([filtered.post.text for filtered in posts])
        scored = iter([_forward(*pair, version) for pair in zip(posts, sentiments, strict=True)])
        return [[next(scored) if fault is None else Reject(fault)] for fault in faults]

    async def tick(self) -> Sequence[Outcome]:
        """Return nothing: the scorer does nothing by the clock."""
        return ()

    def session(self) -> ScorerStage:
        """Return this stage: it keeps nothing of a post that another post could see."""
        return self

    async def _score(self, texts: Sequence[str]) -> tuple[str, list[Sentiment]]:
        if not texts:
            return "", []
        failure = ModelError("the scorer has no model: give it at least one")
        for model in self._models:
            started = self._clock()
            try:
                sentiments = await asyncio.to_thread(model.score, texts)
            except ModelError as error:
                self._on_model_error(model.model_version, error.error_type)
                failure = error
            else:
                self._on_inference(model.model_version, len(texts), self._clock() - started)
                return model.model_version, sentiments
        raise failure


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
