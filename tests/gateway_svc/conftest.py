"""A gateway over a real PostgreSQL whose clock the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest

from gateway_svc.history import SentimentHistory
from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway
from sentimesh.pb.gateway_pb2 import AuthorCredibility
from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceStub, add_SentimentGatewayServiceServicer_to_server
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage import AggregateStore

if TYPE_CHECKING:
    from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceAsyncStub

NOW = 1_700_000_400_000


class Nothing:
    """Back ends that know nothing."""

    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        return [None for _ in symbols]

    latest = get

    async def history(
        self, symbol: str, start_ms: int, end_ms: int, limit: int, after: tuple[int, int] | None = None
    ) -> list[SentimentAggregate]:
        return []

    async def spikes(
        self, symbols: Sequence[str], start_ms: int, end_ms: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[ViralSpike]:
        return []

    async def authors(self, names: Sequence[str]) -> list[AuthorCredibility | None]:
        return [None for _ in names]


NO_HISTORY = SentimentHistory(Nothing(), now_ms=lambda: NOW)


@dataclass
class Past:
    """A running gateway, what it reads from, and its clock."""

    store: AggregateStore
    pool: asyncpg.Pool[Any]
    now_ms: int = NOW
    address: str = ""

    @property
    def gateway(self) -> SentimentGateway:
        async def no_updates(symbols: Sequence[str]) -> AsyncIterator[SentimentAggregate]:
            return
            yield

        return SentimentGateway(
            SentimentReader(Nothing(), self.store, now_ms=lambda: self.now_ms),
            SentimentHistory(self.store, now_ms=lambda: self.now_ms, timeout_seconds=60),
            no_updates,
            {"BTC": "Bitcoin", "ETH": "Ethereum", "SOL": "Solana"},
        )


@pytest.fixture
async def past(pool: asyncpg.Pool[Any]) -> AsyncIterator[Past]:
    past = Past(AggregateStore(pool), pool)
    server = grpc.aio.server()
    add_SentimentGatewayServiceServicer_to_server(past.gateway, server)
    past.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield past
    await server.stop(None)


@pytest.fixture
async def stub(past: Past) -> AsyncIterator[SentimentGatewayServiceAsyncStub]:
    async with grpc.aio.insecure_channel(past.address) as channel:
        yield SentimentGatewayServiceStub(channel)
