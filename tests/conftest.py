"""Real servers for every test that needs one, started once a session."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from sentimesh.embedded import EmbeddedServers
from sentimesh.settings import InfluxDB
from sentimesh.storage import connect
from tests import influxd

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """nats-server, Valkey and PostgreSQL, kept by an event loop of their own."""
    folder = tmp_path_factory.mktemp("servers")
    # The temporary folder is the user's alone; PostgreSQL, when run as root, is another user.
    for parent in folder.parents[:3]:
        if parent.owner() == folder.owner() and parent != Path("/"):
            parent.chmod(0o755)
    running = EmbeddedServers(folder, sync_always=False, durable=False)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
        try:
            yield running
        finally:
            asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def nats_url(servers: EmbeddedServers) -> str:
    return servers.nats_url


@pytest.fixture(scope="session")
def redis_url(servers: EmbeddedServers) -> str:
    return servers.redis_url


@pytest.fixture(scope="session")
def postgres_dsn(servers: EmbeddedServers) -> str:
    return servers.postgres_dsn


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The recordings, which are not part of the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A database of this test's own, its schema up to date."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    pool = await connect(SecretStr(postgres_dsn.rsplit("/", 1)[0] + f"/{name}"))
    yield pool
    await pool.close()
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[influxd.Influxd]:
    """InfluxDB 2, set up and without buckets of ours."""
    if not influxd.BINARY.is_file():
        pytest.skip(".peers/bin/influxd is not here: `make peers` builds it")
    server = influxd.Influxd(tmp_path_factory.mktemp("influxd"))
    yield server
    server.stop()


@pytest.fixture
def influx_section(influx: influxd.Influxd) -> InfluxDB:
    """Settings with buckets of this test's own."""
    return influx.section(f"test_{uuid.uuid4().hex}")
