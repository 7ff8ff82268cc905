"""The command against a real server; it lives here because only the gateway answers it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import pytest
from rich.console import Console

from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway
from sentimesh.cli.gateway import GatewayError, to_json
from sentimesh.cli.get import ask, get, panel
from sentimesh.errors import InvalidSymbolError
from sentimesh.pb.gateway_pb2 import SocialSentiment
from sentimesh.pb.gateway_pb2_grpc import add_SentimentGatewayServiceServicer_to_server
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from tests.gateway_svc.conftest import NO_HISTORY

NOW = 1_700_000_000_000
ROW = SentimentAggregate(
    symbol="BTC",
    social_sentiment_score=0.7125,
    directional_score=0.66,
    polarity=0.4,
    volume_ratio=2.5,
    credibility=0.8,
    post_count=47,
    unique_authors=31,
    viral_spike=True,
    spike_ratio=6.0,
    baseline_ready=True,
    updated_at_ms=NOW - 4200,
)


class Rows:
    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        return [ROW if symbol == "BTC" else None for symbol in symbols]

    latest = get


async def no_updates(symbols: Sequence[str]) -> AsyncIterator[SentimentAggregate]:
    return
    yield


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve from another thread, because the command runs an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        service = SentimentGateway(
            SentimentReader(Rows(), Rows(), now_ms=lambda: NOW),
            NO_HISTORY,
            no_updates,
            {"BTC": "Bitcoin", "ETH": "Ethereum"},
        )
        add_SentimentGatewayServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield f"127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_json_is_the_whole_answer_with_the_field_names_of_the_contract(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    get("BTC", as_json=True, address=address)
    answer = json.loads(capsys.readouterr().out)
    assert answer["symbol"] == "BTC"
    assert answer["social_sentiment_score"] == pytest.approx(0.7125)
    assert answer["band"] == "SENTIMENT_BAND_BULLISH"
    assert answer["data_available"] is True
    assert answer["age_ms"] == "4200"
    assert answer["aggregate"]["post_count"] == 47
    assert answer["aggregate"]["insufficient_data"] is False


def test_people_get_the_figures_in_words(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    get("BTC", as_json=False, address=address)
    shown = capsys.readouterr().out
    for words in ("BTC", "0.7125  bullish", "0.6600", "+0.400", "2.50x", "0.800", "47 by 31 authors", "6.0x", "4.2 s"):
        assert words in shown


def test_no_data_says_why(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    get("ETH", as_json=False, address=address)
    shown = capsys.readouterr().out
    assert "0.5000  neutral" in shown
    assert "no usable data: no score of ETH is known" in shown


@pytest.mark.parametrize(("symbol", "words"), [("NOPE", "NOPE is not tracked: add it"), ("B-", "'B-' is not a symbol")])
async def test_a_refused_symbol_is_the_gateways_sentence(address: str, symbol: str, words: str) -> None:
    with pytest.raises(InvalidSymbolError, match=words):
        await ask(symbol, address)


async def test_a_gateway_that_is_not_there_says_what_to_start() -> None:
    # Port 1 is privileged and unassigned: nothing of the tests ever listens on it.
    with pytest.raises(GatewayError, match=r"no gateway answers at 127\.0\.0\.1:1: start one with `sentimesh up`"):
        await ask("BTC", "127.0.0.1:1")


async def test_another_grpc_server_is_not_taken_for_the_gateway() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(GatewayError, match="is not the gateway"):
        await ask("BTC", f"127.0.0.1:{port}")
    await server.stop(None)


def test_an_old_score_shows_its_age_in_hours() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(panel(SocialSentiment(symbol="BTC", age_ms=3 * 3_600_000, aggregate=ROW, detail="too old")))
    assert "3 h" in capture.get()
    assert "too old" in capture.get()


def test_json_shows_fields_that_are_zero() -> None:
    assert json.loads(to_json(SocialSentiment(symbol="BTC")))["data_available"] is False
