"""What the filter makes of one post: factors times multipliers, and what it is dropped for."""

from __future__ import annotations

from dataclasses import dataclass

from filter_svc.credibility import Credibility
from filter_svc.multipliers import Multipliers
from sentimesh.pb.pipeline_pb2 import FilteredPost, RejectedPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Drop, Forward, Outcome

# Labels of social_posts_filtered_total.
DUPLICATE, LOW_CREDIBILITY, KNOWN_BOT = "duplicate", "low_credibility", "known_bot"
REASON_OF = {
    "known_bot": KNOWN_BOT,
    "copy_paste_flooding": "flooding",
    "post_frequency": "post_frequency",
    "new_account": "new_account",
    "author_history": "author_history",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """How credible a post is, and why."""

    credibility: Credibility
    multipliers: Multipliers
    # SimHash of the text, 0 where it has no words.
    fingerprint: int

    @property
    def score(self) -> float:
        """0.0 to 1.0, in steps of 0.0001."""
        return round(self.credibility.total * self.multipliers.product, 4)

    @property
    def score_as_copy(self) -> float:
        """The score, were the post a copy of another one."""
        return round(self.credibility.total_as_copy * self.multipliers.product, 4)

    def reason(self, min_credibility: float) -> str | None:
        """Return what the post is dropped for; None when it passes.

        What the four factors alone reject is theirs; else the multiplier that takes most is to blame.
        """
        return None if self._passes(self.score, min_credibility) else self._blame(min_credibility)

    def _passes(self, score: float, min_credibility: float) -> bool:
        return score >= min_credibility and self.multipliers.known_bot != 0.0

    def _blame(self, min_credibility: float) -> str:
        if self.multipliers.known_bot == 0.0:
            return KNOWN_BOT
        if self.credibility.score >= min_credibility:
            return REASON_OF[self.multipliers.lowest()]
        return DUPLICATE if self.credibility.originality == 0.0 else LOW_CREDIBILITY

    def outcome(self, post: SocialPost, min_credibility: float) -> Outcome:
        """Return what becomes of the post."""
        score, factors, multipliers = self.score, self.credibility.factors(), self.multipliers.message()
        if self._passes(score, min_credibility):
            message = FilteredPost(
                post=post,
                credibility_score=score,
                factors=factors,
                multipliers=multipliers,
                fingerprint=self.fingerprint,
            )
            return Forward(message, post.symbol, post.post_id)
        reason = self._blame(min_credibility)
        record = RejectedPost(
            post_id=post.post_id,
            platform=post.platform,
            symbol=post.symbol,
            author_id=post.author_id,
            timestamp_ms=post.timestamp_ms,
            credibility_score=score,
            factors=factors,
            multipliers=multipliers,
            fingerprint=self.fingerprint,
            reason=reason,
        )
        return Drop(post.post_id, post.symbol, reason, score, record)
