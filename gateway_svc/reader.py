"""Reads the newest sentiment of symbols: Redis first, PostgreSQL where Redis cannot say, else the neutral default."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from gateway_svc.bands import band_of
from sentimesh.errors import StorageUnavailableError
from sentimesh.patience import Patience
from sentimesh.pb.gateway_pb2 import SentimentSource, SocialSentiment
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate

REDIS = SentimentSource.SENTIMENT_SOURCE_REDIS
POSTGRESQL = SentimentSource.SENTIMENT_SOURCE_POSTGRESQL
DEFAULT = SentimentSource.SENTIMENT_SOURCE_DEFAULT
MS_PER_MINUTE = 60_000

Aggregates = Sequence[SentimentAggregate | None]


class CacheReader(Protocol):
    """The current scores in Redis."""

    async def get(self, symbols: Sequence[str]) -> Aggregates:
        """Return one aggregate or None a symbol, in order; raise StorageUnavailableError when Redis is away."""


class StoreReader(Protocol):
    """The closed windows in PostgreSQL."""

    async def latest(self, symbols: Sequence[str]) -> Aggregates:
        """Return the newest window or None a symbol, in order; raise StorageUnavailableError when it is away."""


class SentimentReader:
    """Answers for symbols whatever is down: the last resort is ``default_score`` with the reason in words."""

    def __init__(
        self,
        cache: CacheReader,
        store: StoreReader,
        *,
        now_ms: Callable[[], int],
        default_score: float = 0.5,
        max_staleness_minutes: float = 15.0,
        read_timeout_seconds: float = 2.0,
        on_fallback: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Read through ``cache`` and ``store``, ages measured against ``now_ms`` (epoch milliseconds).

        ``default_score`` (0.0 to 1.0) and ``max_staleness_minutes`` are the specification's
        ``scoring_integration`` keys. A back end that takes longer than ``read_timeout_seconds`` counts as down.
        ``on_fallback`` is told once for each answer that is not a fresh score from Redis, and why:
        ``redis_unavailable``, ``not_cached``, ``stale``, ``no_data`` or ``storage_unavailable``.
        """
        self._cache = cache
        self._store = store
        self._now_ms = now_ms
        self._default_score = default_score
        self._max_age_ms = round(max_staleness_minutes * MS_PER_MINUTE)
        self._patience = Patience(read_timeout_seconds)
        self._on_fallback = on_fallback

    async def read(self, symbols: Sequence[str]) -> list[SocialSentiment]:
        """Return one answer a symbol, in the order asked; never raises because a back end is down."""
        wanted = list(dict.fromkeys(symbols))
        down: list[str] = []
        cached = await self._ask("Redis", self._cache.get, wanted, down)
        now = self._now_ms()
        missing = [symbol for symbol in wanted if not self._fresh(cached.get(symbol), now)]
        stored = await self._ask("PostgreSQL", self._store.latest, missing, down) if missing else {}
        answers: dict[str, SocialSentiment] = {}
        for symbol in wanted:
            newest, source, other = cached.get(symbol), REDIS, stored.get(symbol)
            if other is not None and (newest is None or other.updated_at_ms > newest.updated_at_ms):
                newest, source = other, POSTGRESQL
            if newest is None or not self._fresh(newest, now):
                answers[symbol] = self._default(symbol, newest, now, down)
                continue
            if source != REDIS:
                self._on_fallback("redis_unavailable" if down else "not_cached")
            answers[symbol] = self.from_aggregate(newest, source, now)
        return [answers[symbol] for symbol in symbols]

    def from_aggregate(
        self, aggregate: SentimentAggregate, source: SentimentSource.ValueType, now_ms: int | None = None
    ) -> SocialSentiment:
        """Return the answer that a usable aggregate makes."""
        now = self._now_ms() if now_ms is None else now_ms
        return SocialSentiment(
            symbol=aggregate.symbol,
            social_sentiment_score=aggregate.social_sentiment_score,
            directional_score=aggregate.directional_score,
            band=band_of(aggregate.social_sentiment_score),
            data_available=True,
            source=source,
            age_ms=_age_ms(aggregate, now),
            aggregate=aggregate,
        )

    async def _ask(
        self,
        name: str,
        read: Callable[[Sequence[str]], Coroutine[Any, Any, Aggregates]],
        symbols: Sequence[str],
        down: list[str],
    ) -> Mapping[str, SentimentAggregate]:
        try:
            found = await self._patience.wait(read(symbols))
        except (StorageUnavailableError, TimeoutError):
            down.append(name)
            return {}
        return {symbol: aggregate for symbol, aggregate in zip(symbols, found, strict=True) if aggregate is not None}

    def _fresh(self, aggregate: SentimentAggregate | None, now_ms: int) -> bool:
        return aggregate is not None and _age_ms(aggregate, now_ms) <= self._max_age_ms

    def _default(
        self, symbol: str, newest: SentimentAggregate | None, now_ms: int, down: Sequence[str]
    ) -> SocialSentiment:
        reason = "no_data" if newest is None else "stale"
        self._on_fallback("storage_unavailable" if "PostgreSQL" in down else reason)
        return SocialSentiment(
            symbol=symbol,
            social_sentiment_score=self._default_score,
            directional_score=self._default_score,
            band=band_of(self._default_score),
            source=DEFAULT,
            age_ms=0 if newest is None else _age_ms(newest, now_ms),
            detail=self._detail(symbol, newest, now_ms, down),
            aggregate=newest,
        )

    def _detail(self, symbol: str, newest: SentimentAggregate | None, now_ms: int, down: Sequence[str]) -> str:
        if newest is None:
            what = f"no score of {symbol} is known"
        else:
            minutes, limit = _age_ms(newest, now_ms) / MS_PER_MINUTE, self._max_age_ms / MS_PER_MINUTE
            what = f"the newest score of {symbol} is {minutes:.0f} minutes old, over the limit of {limit:g}"
        return f"{what}; no answer from {' and '.join(down)}" if down else what


def _age_ms(aggregate: SentimentAggregate, now_ms: int) -> int:
    return max(0, now_ms - aggregate.updated_at_ms)
