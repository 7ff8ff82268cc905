import asyncio
from collections.abc import Sequence

import pytest

from gateway_svc.reader import SentimentReader
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.gateway_pb2 import SentimentBand, SentimentSource
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate

NOW = 1_700_000_000_000
MINUTE = 60_000


class Memory:
    """A reader over a dictionary that can be down."""

    def __init__(self, *aggregates: SentimentAggregate, down: bool = False) -> None:
        self.aggregates = {aggregate.symbol: aggregate for aggregate in aggregates}
        self.down = down
        self.asked: list[list[str]] = []

    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        self.asked.append(list(symbols))
        if self.down:
            raise StorageUnavailableError("does not answer")
        return [self.aggregates.get(symbol) for symbol in symbols]

    latest = get


class Hanging:
    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        await asyncio.Event().wait()
        return []


def aggregate(symbol: str = "BTC", score: float = 0.7, age_ms: int = 5000) -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        social_sentiment_score=score,
        directional_score=0.65,
        polarity=0.3,
        updated_at_ms=NOW - age_ms,
    )


def reader(cache: Memory | Hanging, store: Memory, fallbacks: list[str] | None = None) -> SentimentReader:
    return SentimentReader(
        cache,
        store,
        now_ms=lambda: NOW,
        read_timeout_seconds=0.05 if isinstance(cache, Hanging) else 30,
        on_fallback=fallbacks.append if fallbacks is not None else lambda _reason: None,
    )


async def test_redis_answers_alone_when_it_has_a_fresh_score() -> None:
    store, fallbacks = Memory(aggregate(score=0.1)), list[str]()
    [answer] = await reader(Memory(aggregate()), store, fallbacks).read(["BTC"])
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_REDIS
    assert answer.social_sentiment_score == pytest.approx(0.7)
    assert answer.directional_score == pytest.approx(0.65)
    assert answer.band == SentimentBand.SENTIMENT_BAND_BULLISH
    assert answer.data_available
    assert answer.age_ms == 5000
    assert answer.detail == ""
    assert answer.aggregate == aggregate()
    assert store.asked == []
    assert fallbacks == []


@pytest.mark.parametrize(
    ("cache", "reason"), [(Memory(down=True), "redis_unavailable"), (Memory(), "not_cached")], ids=["down", "empty"]
)
async def test_postgresql_answers_when_redis_is_down_or_has_nothing(cache: Memory, reason: str) -> None:
    fallbacks: list[str] = []
    [answer] = await reader(cache, Memory(aggregate(age_ms=4 * MINUTE)), fallbacks).read(["BTC"])
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_POSTGRESQL
    assert answer.data_available
    assert answer.age_ms == 4 * MINUTE
    assert fallbacks == [reason]


async def test_a_redis_that_hangs_counts_as_down() -> None:
    [answer] = await reader(Hanging(), Memory(aggregate())).read(["BTC"])
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_POSTGRESQL


@pytest.mark.parametrize("age_ms", [15 * MINUTE, 15 * MINUTE + 1])
async def test_a_score_is_usable_up_to_the_limit_and_not_a_millisecond_longer(age_ms: int) -> None:
    fallbacks: list[str] = []
    old = aggregate(score=0.9, age_ms=age_ms)
    [answer] = await reader(Memory(old), Memory(), fallbacks).read(["BTC"])
    assert answer.data_available == (age_ms == 15 * MINUTE)
    if not answer.data_available:
        assert answer.social_sentiment_score == 0.5
        assert answer.directional_score == 0.5
        assert answer.band == SentimentBand.SENTIMENT_BAND_NEUTRAL
        assert answer.source == SentimentSource.SENTIMENT_SOURCE_DEFAULT
        assert answer.age_ms == age_ms
        assert answer.aggregate == old
        assert answer.detail == "the newest score of BTC is 15 minutes old, over the limit of 15"
        assert fallbacks == ["stale"]


async def test_a_stale_redis_gives_way_to_a_newer_row_in_postgresql() -> None:
    [answer] = await reader(Memory(aggregate(age_ms=20 * MINUTE)), Memory(aggregate(age_ms=MINUTE))).read(["BTC"])
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_POSTGRESQL
    assert answer.age_ms == MINUTE


async def test_nothing_anywhere_is_the_neutral_default() -> None:
    fallbacks: list[str] = []
    [answer] = await reader(Memory(), Memory(), fallbacks).read(["BTC"])
    assert (answer.social_sentiment_score, answer.data_available, answer.age_ms) == (0.5, False, 0)
    assert not answer.HasField("aggregate")
    assert answer.detail == "no score of BTC is known"
    assert fallbacks == ["no_data"]


async def test_both_back_ends_down_is_the_neutral_default_and_no_error() -> None:
    fallbacks: list[str] = []
    [answer] = await reader(Memory(down=True), Memory(down=True), fallbacks).read(["BTC"])
    assert (answer.social_sentiment_score, answer.data_available) == (0.5, False)
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_DEFAULT
    assert answer.detail == "no score of BTC is known; no answer from Redis and PostgreSQL"
    assert fallbacks == ["storage_unavailable"]


async def test_many_symbols_keep_their_order_and_only_the_missing_ones_go_to_postgresql() -> None:
    cache = Memory(aggregate("BTC", 0.9), aggregate("SOL", 0.1))
    store = Memory(aggregate("ETH", 0.3))
    answers = await reader(cache, store).read(["SOL", "ETH", "BTC", "ADA", "SOL"])
    assert [a.symbol for a in answers] == ["SOL", "ETH", "BTC", "ADA", "SOL"]
    assert [round(a.social_sentiment_score, 4) for a in answers] == [0.1, 0.3, 0.9, 0.5, 0.1]
    assert cache.asked == [["SOL", "ETH", "BTC", "ADA"]]
    assert store.asked == [["ETH", "ADA"]]


async def test_a_score_from_a_clock_ahead_of_ours_has_age_zero() -> None:
    [answer] = await reader(Memory(aggregate(age_ms=-3000)), Memory()).read(["BTC"])
    assert answer.data_available
    assert answer.age_ms == 0
