"""The filter stage: known bots, near-duplicates, the four factors, the threshold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from filter_svc.credibility import Credibility, compute_credibility
from filter_svc.explain import explain
from filter_svc.known_bots import KnownBots
from filter_svc.near_duplicates import MemoryNearDuplicates, NearDuplicates, Seen
from sentimesh.errors import MalformedMessageError
from sentimesh.native import simhash64
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityResponse, FilteredPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject, Stage

SYMBOL = re.compile(r"[A-Z0-9]{1,20}")
# simhash64 of a text in which nothing is left to compare, a link alone for example.
NOTHING_TO_HASH = 0


def _fault(post: SocialPost) -> str | None:
    """Say why a post cannot be filtered; None when it can."""
    if not post.post_id:
        return "the post has no post_id"
    if not SYMBOL.fullmatch(post.symbol):
        return f"post {post.post_id} has the symbol {post.symbol!r}, which does not match ^[A-Z0-9]{{1,20}}$"
    return None


class FilterStage(Stage[SocialPost]):
    """Gives each post its credibility and drops known bots and what is under the threshold.

    Drop reasons: ``known_bot``; under the threshold ``duplicate`` for a copy of another post, otherwise
    ``low_credibility``. A copy is a post whose SimHash differs in at most ``simhash_threshold`` bits from
    that of an earlier post of the stream, at most ``simhash_ttl_ms`` away by event time. One post is no copy of
    itself: not for its other symbols, and not when it is delivered again.
    """

    def __init__(
        self,
        known_bots: KnownBots,
        near_duplicates: NearDuplicates | None = None,
        *,
        min_account_age_days: float = 30.0,
        min_credibility: float = 0.3,
        simhash_threshold: int = 3,
        simhash_ttl_ms: int = 3_600_000,
    ) -> None:
        """Defaults are the specification's ``spam_filter`` settings; ``min_credibility`` is 0.0 to 1.0.

        ``near_duplicates``: what other filters have seen as well; without it, what this one sees.
        """
        self._known_bots = known_bots
        self._min_account_age_days = min_account_age_days
        self._min_credibility = min_credibility
        self._simhash_threshold = simhash_threshold
        self._simhash_ttl_ms = simhash_ttl_ms
        self._near_duplicates = near_duplicates or MemoryNearDuplicates(simhash_threshold, simhash_ttl_ms)

    async def process(self, batch: Sequence[Delivery[SocialPost]]) -> Sequence[Sequence[Outcome]]:
        """Return one outcome a post: a FilteredPost, a drop with its score, or a rejection.

        Raises StorageUnavailableError when the known bots or the near-duplicates cannot be asked.
        """
        faults = [_fault(delivery.message) for delivery in batch]
        usable = [delivery for delivery, fault in zip(batch, faults, strict=True) if fault is None]
        posts = [delivery.message for delivery in usable]
        bots = await self._known_bots.contains([f"{post.platform}:{post.author_id}" for post in posts])
        copies = await self._copies(usable)
        filtered = iter([self._outcome(post, copy, bot) for post, copy, bot in zip(posts, copies, bots, strict=True)])
        return [[next(filtered) if fault is None else Reject(fault)] for fault in faults]

    async def tick(self) -> Sequence[Outcome]:
        """Return nothing: the filter does nothing by the clock."""
        return ()

    def session(self) -> FilterStage:
        """Return a filter that has seen no post; the known bots, which it only reads, are the same."""
        return FilterStage(
            self._known_bots,
            min_account_age_days=self._min_account_age_days,
            min_credibility=self._min_credibility,
            simhash_threshold=self._simhash_threshold,
            simhash_ttl_ms=self._simhash_ttl_ms,
        )

    async def explain(self, post: SocialPost) -> ExplainCredibilityResponse:
        """Say how the stage would judge a post now, and why. To be asked of a session, because that remembers the post.

        Raises MalformedMessageError for a post that cannot be filtered and StorageUnavailableError.
        """
        if fault := _fault(post):
            raise MalformedMessageError(f"{fault}: give a post as ingest makes it")
        [is_bot] = await self._known_bots.contains([f"{post.platform}:{post.author_id}"])
        [is_copy] = await self._copies([Delivery(post, 1)])
        credibility = self._credibility(post, is_copy, is_bot)
        return explain(
            post,
            credibility,
            self._reason(credibility, is_bot),
            is_duplicate=is_copy,
            is_known_bot=is_bot,
            min_account_age_days=self._min_account_age_days,
            min_credibility=self._min_credibility,
        )

    async def _copies(self, batch: Sequence[Delivery[SocialPost]]) -> list[bool]:
        """Say of each post whether it is a copy of another one, and remember it."""
        fingerprints = simhash64([delivery.message.text for delivery in batch])
        compared = [index for index, fingerprint in enumerate(fingerprints) if fingerprint != NOTHING_TO_HASH]
        originals = await self._near_duplicates.originals(
            [
                Seen(
                    batch[index].message.post_id,
                    fingerprints[index],
                    batch[index].sequence,
                    batch[index].message.timestamp_ms,
                )
                for index in compared
            ]
        )
        found = {index for index, original in zip(compared, originals, strict=True) if original is not None}
        return [index in found for index in range(len(batch))]

    def _credibility(self, post: SocialPost, is_copy: bool, is_known_bot: bool) -> Credibility:
        return compute_credibility(
            post,
            is_duplicate=is_copy,
            is_known_bot=is_known_bot,
            min_account_age_days=self._min_account_age_days,
        )

    def _outcome(self, post: SocialPost, is_copy: bool, is_known_bot: bool) -> Outcome:
        credibility = self._credibility(post, is_copy, is_known_bot)
        reason = self._reason(credibility, is_known_bot)
        if reason is not None:
            return Drop(post.post_id, post.symbol, reason, credibility.score)
        message = FilteredPost(post=post, credibility_score=credibility.score, factors=credibility.factors())
        return Forward(message, post.symbol, post.post_id)

    def _reason(self, credibility: Credibility, is_known_bot: bool) -> str | None:
        if is_known_bot:
            return "known_bot"
        if credibility.score >= self._min_credibility:
            return None
        return "duplicate" if credibility.originality == 0.0 else "low_credibility"
