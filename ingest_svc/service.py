"""The ingest stage: normalise, find symbols, leave out what repeats another post, fan out by symbol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ingest_svc.claims import Claim, Claims, Holders, MemoryClaims, Owner
from ingest_svc.normalize import normalize
from ingest_svc.text import copy_hash
from sentimesh.errors import MalformedMessageError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject
from sentimesh.symbols import TrackedExtractor


class IngestStage:
    """Implements ``sentimesh.stage.Stage[RawPost]``: one Forward for each tracked symbol that a post names.

    Reasons for dropping, in the order they are checked: ``bot_account`` (the platform itself says so), ``repost``
    (without any text), ``empty``, ``language``, ``no_symbol``; then, by claims that replicas share, ``repost`` (its
    original, or another repost of it, was seen), ``duplicate`` (this id was seen), ``cross_platform_copy`` (the same
    text on another platform).
    """

    def __init__(
        self,
        extractor: TrackedExtractor,
        claims: Claims,
        languages: Collection[str],
        now_ms: Callable[[], int],
        session_claims: Callable[[], Claims] = MemoryClaims,
    ) -> None:
        """``languages``: ISO 639-1 codes that pass, as do posts of unknown language; empty means all.

        The claims say how long an id or a text is remembered (``RedisClaims``); ``session_claims`` makes those of a
        gRPC stream.
        """
        self._extractor = extractor
        self._claims = claims
        self._languages = frozenset(languages)
        self._now_ms = now_ms
        self._session_claims = session_claims

    async def process(self, batch: Sequence[Delivery[RawPost]]) -> list[list[Outcome]]:
        """Return each payload's outcomes. Raises StorageUnavailableError when the claims cannot be asked."""
        now_ms = self._now_ms()
        outcomes: list[list[Outcome]] = [[] for _ in batch]
        readable: list[tuple[int, SocialPost]] = []
        for index, delivery in enumerate(batch):
            try:
                post, bot = normalize(delivery.message, now_ms)
            except MalformedMessageError as error:
                outcomes[index] = [Reject(str(error))]
                continue
            if reason := self._refusal(post, bot):
                outcomes[index] = [Drop(post.post_id, "", reason)]
            else:
                readable.append((index, post))
        named: list[tuple[int, SocialPost, list[str]]] = []
        found = self._extractor.extract([post.text for _, post in readable]) if readable else []
        for (index, post), symbols in zip(readable, found, strict=True):
            if symbols:
                named.append((index, post, symbols))
            else:
                outcomes[index] = [Drop(post.post_id, "", "no_symbol")]
        requests = [
            Claim(
                Owner(batch[index].sequence, post.platform, post.timestamp_ms),
                post.repost_of or post.post_id,
                copy_hash(post.text),
            )
            for index, post, _ in named
        ]
        answers = await self._claims.claim(requests) if requests else []
        for (index, post, symbols), request, holders in zip(named, requests, answers, strict=True):
            if reason := _repetition(post, request.claimant, holders):
                outcomes[index] = [Drop(post.post_id, symbols[0], reason)]
            else:
                outcomes[index] = [_forward(post, symbol) for symbol in symbols]
        return outcomes

    async def tick(self) -> Sequence[Outcome]:
        """Nothing here is due by the clock."""
        return ()

    def session(self) -> IngestStage:
        """Return a stage with claims of its own, in memory."""
        return IngestStage(self._extractor, self._session_claims(), self._languages, self._now_ms, self._session_claims)

    def _refusal(self, post: SocialPost, bot: bool) -> str:
        if bot:
            return "bot_account"
        if not post.text:
            return "repost" if post.repost_of else "empty"
        if self._languages and post.language and post.language not in self._languages:
            return "language"
        return ""


def _repetition(post: SocialPost, mine: Owner, holders: Holders) -> str:
    if holders.post.sequence != mine.sequence:
        return "repost" if post.repost_of else "duplicate"
    if holders.text is not None and holders.text.platform != mine.platform:
        return "cross_platform_copy"
    return ""


def _forward(post: SocialPost, symbol: str) -> Forward:
    message = SocialPost()
    message.CopyFrom(post)
    message.symbol = symbol
    return Forward(message, symbol, post.post_id)
