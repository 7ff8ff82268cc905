"""One whole system for all end-to-end tests: five stages on real servers, on the event clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import redis.asyncio
from pydantic import SecretStr

from sentimesh.bus import Bus
from sentimesh.ledger import Ledger
from sentimesh.settings import Settings, load_settings
from sentimesh.stack import Stack
from sentimesh.storage import connect


@dataclass(frozen=True, slots=True)
class System:
    """What a test needs of a running system."""

    stack: Stack
    bus: Bus
    ledger: Ledger
    settings: Settings


@pytest.fixture
def settings(nats_url: str, redis_url: str, postgres_dsn: str) -> Settings:
    settings = load_settings(None).model_copy(deep=True)
    settings.nats.url = SecretStr(nats_url)
    settings.storage.redis.url = SecretStr(redis_url)
    settings.storage.postgresql.dsn = SecretStr(postgres_dsn)
    settings.model.primary = "sentimesh-mini"
    settings.aggregation.clock = "event"
    return settings


@pytest.fixture
async def clean(settings: Settings, redis_url: str, postgres_dsn: str) -> None:
    """Forget earlier tests: their claims would make posts duplicates, their streams go on, their scores be newer."""
    async with await connect(SecretStr(postgres_dsn)) as pool:
        await pool.execute("TRUNCATE social_sentiment_scores, social_viral_spikes, social_author_credibility")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
    async with Bus(settings.nats.url or SecretStr("")) as bus:
        for stream in await bus.jetstream.streams_info():
            await bus.jetstream.delete_stream(str(stream.config.name))


@pytest.fixture
async def system(settings: Settings, clean: None) -> AsyncIterator[System]:
    ledger = Ledger()
    async with (
        Bus(settings.nats.url or SecretStr("")) as bus,
        Stack(
            settings, observers=[ledger], on_visible=ledger.on_visible, free_ports=True, allow_embedded=False
        ) as stack,
    ):
        yield System(stack, bus, ledger, settings)
