"""The filter stage: what was seen before a post and is known of its author, the four factors, the threshold."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from filter_svc.author_history import AuthorHistory, MemoryAuthorHistory
from filter_svc.credibility import compute_credibility
from filter_svc.explain import explain
from filter_svc.judgement import Judgement
from filter_svc.known_bots import KnownBots
from filter_svc.multipliers import MultiplierOptions, multipliers
from filter_svc.near_duplicates import MemoryNearDuplicates, NearDuplicates, Original, Seen
from filter_svc.sightings import (
    DEFAULT_CHANNEL_COPIES_MS,
    DEFAULT_COPIES_MS,
    MemorySightings,
    Sighted,
    Sighting,
    Sightings,
)
from sentimesh.errors import MalformedMessageError
from sentimesh.native import simhash64
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityResponse
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Outcome, Reject, Stage

SYMBOL = re.compile(r"[A-Z0-9]{1,20}")
# simhash64 of a text in which nothing is left to compare, a link alone for example.
NOTHING_TO_HASH = 0
# The sequence of a post that the stream has yet to bring: after all that it has brought.
NOT_YET = 1 << 52


def _fault(post: SocialPost) -> str | None:
    """Say why a post cannot be filtered; None when it can."""
    if not post.post_id:
        return "the post has no post_id"
    if not SYMBOL.fullmatch(post.symbol):
        return f"post {post.post_id} has the symbol {post.symbol!r}, which does not match ^[A-Z0-9]{{1,20}}$"
    return None


def author_of(post: SocialPost) -> str:
    """Return a post's author, ``{platform}:{author_id}``; empty where the platform does not name one."""
    return f"{post.platform}:{post.author_id}" if post.author_id else ""


def is_channel(post: SocialPost) -> bool:
    """Say whether a post's author is a broadcast channel; of Telegram's ids those that start with -100 are."""
    return post.platform == "telegram" and post.author_id.startswith("-100")


class FilterStage(Stage[SocialPost]):
    """Gives each post its credibility and drops what is under the threshold.

    The credibility is the specification's sum of four factors times five multipliers. Drop reasons: ``known_bot``;
    ``duplicate`` and ``low_credibility`` where the four factors alone are under the threshold; else the multiplier to
    blame: ``flooding``, ``post_frequency``, ``new_account``, ``author_history``. A copy is a post whose SimHash differs
    in at most ``simhash_threshold`` bits from that of an earlier post of the stream, at most ``simhash_ttl_ms`` away by
    event time. One post is no copy of itself: not for its other symbols, and not when it is delivered again.
    """

    def __init__(
        self,
        known_bots: KnownBots,
        near_duplicates: NearDuplicates | None = None,
        sightings: Sightings | None = None,
        history: AuthorHistory | None = None,
        *,
        options: MultiplierOptions | None = None,
        min_credibility: float = 0.3,
        simhash_threshold: int = 3,
        simhash_ttl_ms: int = 3_600_000,
        copies_ms: int = DEFAULT_COPIES_MS,
        channel_copies_ms: int = DEFAULT_CHANNEL_COPIES_MS,
        live: Sightings | None = None,
    ) -> None:
        """Defaults are the specification's ``spam_filter`` settings; ``min_credibility`` is 0.0 to 1.0.

        ``near_duplicates`` and ``sightings``: what other filters have seen as well; without them, what this one sees.
        ``history``: what was learned of authors. ``copies_ms`` and ``channel_copies_ms``: how long copies are counted.
        ``live``: whose counts explanations are of, its own where not given.
        """
        self._known_bots = known_bots
        self._near_duplicates = near_duplicates or MemoryNearDuplicates(simhash_threshold, simhash_ttl_ms)
        self._sightings = sightings or MemorySightings(copies_ms, channel_copies_ms)
        self._history = history or MemoryAuthorHistory({})
        self._options = options or MultiplierOptions()
        self._min_credibility = min_credibility
        self._simhash_threshold = simhash_threshold
        self._simhash_ttl_ms = simhash_ttl_ms
        self._windows = copies_ms, channel_copies_ms
        self._live = live
        self._explained = 0

    async def process(self, batch: Sequence[Delivery[SocialPost]]) -> Sequence[Sequence[Outcome]]:
        """Return one outcome a post: a FilteredPost, a drop with its score, or a rejection.

        Raises StorageUnavailableError when what was seen or is known before cannot be asked.
        """
        faults = [_fault(delivery.message) for delivery in batch]
        usable = [delivery for delivery, fault in zip(batch, faults, strict=True) if fault is None]
        judged = [judgement for judgement, _, _ in await self._judge(usable, self._sightings, remember=True)]
        outcomes = iter(
            judgement.outcome(delivery.message, self._min_credibility)
            for judgement, delivery in zip(judged, usable, strict=True)
        )
        return [[next(outcomes) if fault is None else Reject(fault)] for fault in faults]

    async def tick(self) -> Sequence[Outcome]:
        """Return nothing: the filter does nothing by the clock."""
        return ()

    def session(self) -> FilterStage:
        """Return a filter that has seen no post; what is known of authors, which it only reads, is the same."""
        return FilterStage(
            self._known_bots,
            history=self._history,
            options=self._options,
            min_credibility=self._min_credibility,
            simhash_threshold=self._simhash_threshold,
            simhash_ttl_ms=self._simhash_ttl_ms,
            copies_ms=self._windows[0],
            channel_copies_ms=self._windows[1],
            live=self._sightings,
        )

    async def explain(self, post: SocialPost) -> ExplainCredibilityResponse:
        """Say how the stage would judge a post now, and why. To be asked of a session, because that remembers the post.

        Raises MalformedMessageError for a post that cannot be filtered and StorageUnavailableError.
        """
        if fault := _fault(post):
            raise MalformedMessageError(f"{fault}: give a post as ingest makes it")
        self._explained += 1
        if self._live is None:
            asked = self._judge([Delivery(post, self._explained)], self._sightings, remember=True)
        else:
            asked = self._judge([Delivery(post, NOT_YET)], self._live, remember=False)
        [(judgement, original, sighted)] = await asked
        return explain(
            post,
            judgement,
            sighted,
            self._options,
            is_duplicate=original is not None,
            min_credibility=self._min_credibility,
        )

    async def _judge(
        self, batch: Sequence[Delivery[SocialPost]], sightings: Sightings, *, remember: bool
    ) -> list[tuple[Judgement, Original | None, Sighted]]:
        posts = [delivery.message for delivery in batch]
        authors = [author_of(post) for post in posts]
        fingerprints = simhash64([post.text for post in posts])
        # At once, so that each of them knows how long Redis has been away.
        bots, histories, originals = await asyncio.gather(
            self._known_bots.contains(authors),
            self._history.multipliers(authors),
            self._originals(batch, fingerprints),
        )
        sighted = await sightings.count(
            [
                Sighting(
                    delivery.message.post_id,
                    delivery.sequence,
                    delivery.message.timestamp_ms,
                    author,
                    _texts(fingerprint, original),
                    is_channel=is_channel(delivery.message),
                )
                for delivery, author, fingerprint, original in zip(batch, authors, fingerprints, originals, strict=True)
            ],
            remember=remember,
        )
        return [
            (
                Judgement(
                    compute_credibility(
                        post,
                        is_duplicate=original is not None,
                        min_account_age_days=self._options.min_account_age_days,
                    ),
                    multipliers(post, counted, history, self._options, is_known_bot=is_bot),
                    fingerprint,
                ),
                original,
                counted,
            )
            for post, fingerprint, original, counted, history, is_bot in zip(
                posts, fingerprints, originals, sighted, histories, bots, strict=True
            )
        ]

    async def _originals(
        self, batch: Sequence[Delivery[SocialPost]], fingerprints: Sequence[int]
    ) -> list[Original | None]:
        """Return what each post is a copy of, None where of nothing, and remember the posts."""
        seen = [
            Seen(delivery.message.post_id, fingerprint, delivery.sequence, delivery.message.timestamp_ms)
            for delivery, fingerprint in zip(batch, fingerprints, strict=True)
            if fingerprint != NOTHING_TO_HASH
        ]
        found = iter(await self._near_duplicates.originals(seen))
        return [next(found) if fingerprint != NOTHING_TO_HASH else None for fingerprint in fingerprints]


def _texts(fingerprint: int, original: Original | None) -> tuple[int, ...]:
    """Return under which fingerprints a post is counted."""
    if fingerprint == NOTHING_TO_HASH:
        return ()
    if original is None or original.fingerprint == fingerprint:
        return (fingerprint,)
    return fingerprint, original.fingerprint
