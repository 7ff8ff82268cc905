from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.gateway_pb2 import (
    BatchGetSocialSentimentRequest,
    GetSocialSentimentRequest,
    ListSymbolsRequest,
    SentimentSource,
    WatchSocialSentimentRequest,
)
from sentimesh.pb.gateway_pb2_grpc import (
    SentimentGatewayServiceStub,
    add_SentimentGatewayServiceServicer_to_server,
)
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from tests.gateway_svc.conftest import NO_HISTORY

if TYPE_CHECKING:
    from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceAsyncStub

NOW = 1_700_000_000_000
ASSETS = {"BTC": "Bitcoin", "ETH": "Ethereum", "ADA": "Cardano"}


def aggregate(symbol: str, score: float, at: int = NOW) -> SentimentAggregate:
    return SentimentAggregate(symbol=symbol, social_sentiment_score=score, updated_at_ms=at)


class Back:
    """Both back ends and the live updates, in memory."""

    def __init__(self) -> None:
        self.rows = {"BTC": aggregate("BTC", 0.8), "ETH": aggregate("ETH", 0.3)}
        self.updates: asyncio.Queue[SentimentAggregate | Exception | None] = asyncio.Queue()
        self.watched: list[str] | None = None
        self.watch_ended = asyncio.Event()
        self.answers: list[tuple[str, str]] = []

    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        return [self.rows.get(symbol) for symbol in symbols]

    latest = get

    async def live(self, symbols: Sequence[str]) -> AsyncIterator[SentimentAggregate]:
        self.watched = list(symbols)
        try:
            while (update := await self.updates.get()) is not None:
                if isinstance(update, Exception):
                    raise update
                yield update
        finally:
            self.watch_ended.set()


@pytest.fixture
def back() -> Back:
    return Back()


@pytest.fixture
async def gateway(back: Back) -> AsyncIterator[SentimentGatewayServiceAsyncStub]:
    server = grpc.aio.server()
    service = SentimentGateway(
        SentimentReader(back, back, now_ms=lambda: NOW),
        NO_HISTORY,
        back.live,
        ASSETS,
        on_answer=lambda symbol, source: back.answers.append((symbol, source)),
    )
    add_SentimentGatewayServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield SentimentGatewayServiceStub(channel)
    await server.stop(None)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_get_answers_for_a_tracked_symbol(gateway: SentimentGatewayServiceAsyncStub, back: Back) -> None:
    answer = (await gateway.GetSocialSentiment(GetSocialSentimentRequest(symbol="BTC"))).sentiment
    assert answer.symbol == "BTC"
    assert answer.social_sentiment_score == pytest.approx(0.8)
    assert answer.source == SentimentSource.SENTIMENT_SOURCE_REDIS
    assert back.answers == [("BTC", "redis")]


@pytest.mark.parametrize("written", ["ETH/USD", "eth", "$ETH"])
async def test_a_symbol_is_read_as_people_write_it(gateway: SentimentGatewayServiceAsyncStub, written: str) -> None:
    answer = (await gateway.GetSocialSentiment(GetSocialSentimentRequest(symbol=written))).sentiment
    assert answer.symbol == "ETH"
    assert answer.social_sentiment_score == pytest.approx(0.3)


async def test_a_tracked_symbol_without_data_is_neutral(gateway: SentimentGatewayServiceAsyncStub, back: Back) -> None:
    answer = (await gateway.GetSocialSentiment(GetSocialSentimentRequest(symbol="ADA"))).sentiment
    assert (answer.social_sentiment_score, answer.data_available) == (0.5, False)
    assert answer.detail == "no score of ADA is known"
    assert back.answers == [("ADA", "default")]


async def test_an_untracked_symbol_is_not_found_and_says_how_to_track_it(
    gateway: SentimentGatewayServiceAsyncStub,
) -> None:
    code, detail = await refused(gateway.GetSocialSentiment(GetSocialSentimentRequest(symbol="NOPE")))
    assert code == grpc.StatusCode.NOT_FOUND
    assert detail.startswith("NOPE is not tracked: add it to the tracked symbols")


@pytest.mark.parametrize("symbol", ["", "BTC; DROP TABLE", "A" * 21, 'ETH") |> yield', "/USD", "ETH/", "ÉTH"])
async def test_what_cannot_be_a_symbol_is_an_invalid_argument(
    gateway: SentimentGatewayServiceAsyncStub, symbol: str
) -> None:
    code, detail = await refused(gateway.GetSocialSentiment(GetSocialSentimentRequest(symbol=symbol)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert detail


async def test_batch_answers_in_the_order_asked(gateway: SentimentGatewayServiceAsyncStub) -> None:
    response = await gateway.BatchGetSocialSentiment(BatchGetSocialSentimentRequest(symbols=["ADA", "ETH", "BTC"]))
    assert [s.symbol for s in response.sentiments] == ["ADA", "ETH", "BTC"]
    assert [s.data_available for s in response.sentiments] == [False, True, True]


@pytest.mark.parametrize("count", [0, 101])
async def test_batch_takes_one_to_a_hundred_symbols(gateway: SentimentGatewayServiceAsyncStub, count: int) -> None:
    request = BatchGetSocialSentimentRequest(symbols=["BTC"] * count)
    code, detail = await refused(gateway.BatchGetSocialSentiment(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "100" in detail


async def test_a_hundred_symbols_are_answered(gateway: SentimentGatewayServiceAsyncStub) -> None:
    response = await gateway.BatchGetSocialSentiment(BatchGetSocialSentimentRequest(symbols=["BTC"] * 100))
    assert len(response.sentiments) == 100


async def test_symbols_are_listed_in_order(gateway: SentimentGatewayServiceAsyncStub) -> None:
    response = await gateway.ListSymbols(ListSymbolsRequest())
    assert [(s.symbol, s.name) for s in response.symbols] == sorted(ASSETS.items())


async def test_watch_shows_the_state_first_then_each_update_until_they_end(
    gateway: SentimentGatewayServiceAsyncStub, back: Back
) -> None:
    for update in (aggregate("BTC", 0.9, NOW + 1), aggregate("BTC", 0.7, NOW + 2), None):
        back.updates.put_nowait(update)
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest(symbols=["BTC"]))
    seen = [(round(r.sentiment.social_sentiment_score, 4), r.sentiment.source) async for r in call]
    assert seen == [
        (0.8, SentimentSource.SENTIMENT_SOURCE_REDIS),
        (0.9, SentimentSource.SENTIMENT_SOURCE_LIVE),
        (0.7, SentimentSource.SENTIMENT_SOURCE_LIVE),
    ]
    assert await call.code() == grpc.StatusCode.OK
    assert back.watched == ["BTC"]


async def test_watch_skips_an_update_older_than_the_state_it_showed(
    gateway: SentimentGatewayServiceAsyncStub, back: Back
) -> None:
    for update in (aggregate("BTC", 0.1, NOW - 1), aggregate("BTC", 0.9, NOW + 1), None):
        back.updates.put_nowait(update)
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest(symbols=["BTC"]))
    assert [round(r.sentiment.social_sentiment_score, 4) async for r in call] == [0.8, 0.9]


async def test_watching_no_symbol_in_particular_is_watching_all(
    gateway: SentimentGatewayServiceAsyncStub, back: Back
) -> None:
    back.updates.put_nowait(None)
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest())
    assert [r.sentiment.symbol async for r in call] == ["ADA", "BTC", "ETH"]
    assert back.watched == ["ADA", "BTC", "ETH"]


async def test_a_watcher_that_leaves_ends_its_live_updates(
    gateway: SentimentGatewayServiceAsyncStub, back: Back
) -> None:
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest(symbols=["BTC"]))
    first = await anext(aiter(call))
    assert first.sentiment.symbol == "BTC"
    call.cancel()
    await back.watch_ended.wait()


async def test_watch_says_that_the_live_updates_are_away(gateway: SentimentGatewayServiceAsyncStub, back: Back) -> None:
    back.updates.put_nowait(StorageUnavailableError("NATS does not answer"))
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest(symbols=["BTC"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [r async for r in call]
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "NATS does not answer" in (caught.value.details() or "")


async def test_watch_refuses_an_untracked_symbol(gateway: SentimentGatewayServiceAsyncStub) -> None:
    call = gateway.WatchSocialSentiment(WatchSocialSentimentRequest(symbols=["BTC", "NOPE"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [r async for r in call]
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
