"""What stages need is connected, and what is missing or unwell is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from sentimesh.connections import Connections, StackError
from sentimesh.settings import Settings, load_settings


@pytest.fixture
def settings(nats_url: str) -> Settings:
    settings = load_settings(None).model_copy(deep=True)
    settings.nats.url = SecretStr(nats_url)
    return settings


def connections(settings: Settings, *stages: str) -> Connections:
    return Connections(settings, stages, data_dir=Path("nowhere"), allow_embedded=False)


async def test_a_stage_gets_what_it_needs_and_nothing_else(settings: Settings) -> None:
    async with connections(settings, "scorer") as connected:
        assert connected.bus.connected
        assert connected.influx is None
        assert await connected.any_database() is None
        with pytest.raises(StackError, match="Redis is not connected"):
            _ = connected.redis
        with pytest.raises(StackError, match="PostgreSQL is not connected"):
            _ = connected.database


async def test_servers_that_are_missing_are_named_by_their_keys(settings: Settings) -> None:
    with pytest.raises(
        StackError, match=r"^storage\.redis\.url and storage\.postgresql\.dsn not configured.*sentimesh up"
    ):
        async with connections(settings, "scorer", "gateway"):
            pass


def test_a_stage_that_there_is_not_is_refused(settings: Settings) -> None:
    with pytest.raises(StackError, match="there is no stage filer: the stages are ingest, filter,"):
        connections(settings, "ingest", "filer")


async def test_a_server_that_somebody_waits_for_is_not_well(settings: Settings, redis_url: str) -> None:
    settings.storage.redis.url = SecretStr(redis_url)
    waiting = False
    async with connections(settings, "filter") as connected:
        connected.watch("redis", lambda: waiting)
        checks = connected.checks("filter")
        assert list(checks) == ["nats", "redis"]
        assert [await check() for check in checks.values()] == [True, True]
        waiting = True
        assert [await check() for check in checks.values()] == [True, False]


async def test_a_database_that_no_stage_needs_is_opened_once_for_who_asks(
    settings: Settings, redis_url: str, postgres_dsn: str
) -> None:
    settings.storage.redis.url = SecretStr(redis_url)
    settings.storage.postgresql.dsn = SecretStr(postgres_dsn)
    async with connections(settings, "filter") as connected:
        pool = await connected.any_database()
        assert pool is not None
        assert await pool.fetchval("SELECT 1") == 1
        assert await connected.any_database() is pool
        assert "postgresql" not in connected.checks("filter")
