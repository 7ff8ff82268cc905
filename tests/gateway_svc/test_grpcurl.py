"""The real grpcurl against the gateway, by reflection: what the demo's last line invites to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway_svc.history import SentimentHistory
from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway
from sentimesh.pb.gateway_pb2_grpc import add_SentimentGatewayServiceServicer_to_server
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.rpc import PACKAGE, RpcServer
from tests.gateway_svc.conftest import Nothing

GRPCURL = Path(__file__).resolve().parents[2] / ".peers" / "bin" / "grpcurl"
SERVICE = f"{PACKAGE}.SentimentGatewayService"
NOW = 1_700_000_000_000

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not GRPCURL.exists(), reason="grpcurl is not built: make peers"),
]


class Rows(Nothing):
    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        row = SentimentAggregate(symbol="BTC", social_sentiment_score=0.25, post_count=5, updated_at_ms=NOW)
        return [row if symbol == "BTC" else None for symbol in symbols]

    latest = get

    async def spikes(
        self, symbols: Sequence[str], start_ms: int, end_ms: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[ViralSpike]:
        return [ViralSpike(symbol="BTC", mention_count=60, detected_at_ms=start_ms)]


async def no_updates(symbols: Sequence[str]) -> AsyncIterator[SentimentAggregate]:
    return
    yield


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = RpcServer("127.0.0.1", 0)
    reader = SentimentReader(Rows(), Rows(), now_ms=lambda: NOW)
    history = SentimentHistory(Rows(), now_ms=lambda: NOW)
    gateway = SentimentGateway(reader, history, no_updates, {"BTC": "Bitcoin"})
    add_SentimentGatewayServiceServicer_to_server(gateway, server.server)
    await server.start([SERVICE])
    await server.set_serving(serving=True)
    yield server.address
    await server.stop()


async def grpcurl(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_services_are_listed_and_described(address: str) -> None:
    code, listed = await grpcurl(address, "list")
    assert code == 0
    assert {SERVICE, "grpc.health.v1.Health"} <= set(listed.split())
    code, described = await grpcurl(address, "describe", SERVICE)
    assert code == 0
    for method in (
        *("GetSocialSentiment", "BatchGetSocialSentiment", "WatchSocialSentiment", "ListSymbols"),
        *("GetSentimentHistory", "ListViralSpikes", "GetAuthorCredibility"),
    ):
        assert f"rpc {method} " in described


async def test_health_says_serving(address: str) -> None:
    code, answer = await grpcurl("-d", json.dumps({"service": SERVICE}), address, "grpc.health.v1.Health/Check")
    assert (code, json.loads(answer)) == (0, {"status": "SERVING"})


async def test_a_score_is_asked_for(address: str) -> None:
    code, answer = await grpcurl("-d", '{"symbol": "BTC"}', address, f"{SERVICE}/GetSocialSentiment")
    assert code == 0
    sentiment = json.loads(answer)["sentiment"]
    assert sentiment["social_sentiment_score"] == 0.25
    assert sentiment["band"] == "SENTIMENT_BAND_BEARISH"


async def test_an_untracked_symbol_is_not_found(address: str) -> None:
    code, answer = await grpcurl("-d", '{"symbol": "NOPE"}', address, f"{SERVICE}/GetSocialSentiment")
    assert code != 0
    assert "NotFound" in answer
    assert "NOPE is not tracked" in answer


async def test_spikes_and_a_refused_history_are_asked_for(address: str) -> None:
    code, answer = await grpcurl("-d", '{"start_ms": "5"}', address, f"{SERVICE}/ListViralSpikes")
    assert code == 0
    assert json.loads(answer) == {"spikes": [{"symbol": "BTC", "mention_count": 60, "detected_at_ms": "5"}]}
    request = json.dumps({"symbol": "BTC", "start_ms": 2, "end_ms": 1})
    code, answer = await grpcurl("-d", request, address, f"{SERVICE}/GetSentimentHistory")
    assert code != 0
    assert "InvalidArgument" in answer
    assert "start_ms 2 is after end_ms 1" in answer
