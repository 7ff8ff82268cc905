"""Servers that hang, refuse writes or have a full disk: the pipeline waits, says so, and catches up."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
import redis.asyncio
import stamina
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from sentimesh.build import now_ms
from sentimesh.embedded import EmbeddedServers
from sentimesh.ledger import Ledger
from sentimesh.settings import InfluxDB, Settings
from sentimesh.stack import Stack
from sentimesh.storage.influx import InfluxStore
from tests.e2e.test_pipeline import BULLISH, ListSource, tweet
from tests.proxy import Proxy

FILL = 1 << 20


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Stack]:
    async with Stack(settings, observers=[Ledger()], free_ports=True, allow_embedded=False) as stack:
        yield stack


async def serving(stack: Stack, stage: str, service: str) -> bool:
    async with grpc.aio.insecure_channel(stack.addresses[stage]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until_health(stack: Stack, stage: str, server: str, *, serving_expected: bool) -> None:
    """Wait until the stage says that the server is, or is not, usable: by name, over all, and as a metric."""
    async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=None, wait_max=0.3):
        with attempt:
            assert await serving(stack, stage, server) == serving_expected
            assert await serving(stack, stage, "") == serving_expected
            up = stack.metrics.registry.get_sample_value("social_dependency_up", {"dependency": server})
            assert up == serving_expected


async def send(stack: Stack, first: int, at_ms: int) -> None:
    await stack.run_source(ListSource([tweet(first + n, f"{text} {first}", at_ms) for n, text in enumerate(BULLISH)]))


async def counted(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(post_count), 0) FROM social_sentiment_scores"))
    finally:
        await connection.close()


def scores(stack: Stack) -> float | None:
    return stack.metrics.registry.get_sample_value("social_writer_errors_total", {"backend": "redis"})


@pytest.mark.parametrize("server", ["redis", "postgresql", "influxdb"])
async def test_a_server_that_hangs_is_waited_for_and_nothing_is_lost(
    server: str, settings: Settings, clean: None, influx_section: InfluxDB, postgres_dsn: str
) -> None:
    settings.storage.influxdb = influx_section
    urls = settings.server_urls()
    url = urls[server]
    assert url is not None
    async with Proxy(url.get_secret_value()) as proxy:
        behind = SecretStr(proxy.url)
        match server:
            case "redis":
                settings.storage.redis.url = behind
            case "postgresql":
                settings.storage.postgresql.dsn = behind
            case _:
                settings.storage.influxdb = influx_section.model_copy(update={"url": behind})
        at_ms = now_ms() - 60 * 60_000
        async with running(settings) as stack:
            await send(stack, 0, at_ms)
            await stack.drained()
            await until_health(stack, "aggregator", server, serving_expected=True)
            proxy.hang()
            # Windows close meanwhile: the second posts are ten minutes younger.
            await send(stack, 100, at_ms + 10 * 60_000)
            await until_health(stack, "aggregator", server, serving_expected=False)
            proxy.flow()
            await until_health(stack, "aggregator", server, serving_expected=True)
            await stack.finish()
    assert await counted(postgres_dsn) == 2 * len(BULLISH)
    store = InfluxStore.configured(influx_section)
    assert store is not None
    points = await store.window_counts(["BTC"], at_ms - 10**7, at_ms + 10**7)
    await store.close()
    assert sum(count for _, _, count in points) == 2 * len(BULLISH)


async def test_a_redis_that_refuses_writes_is_waited_for(
    settings: Settings, clean: None, redis_url: str, postgres_dsn: str
) -> None:
    at_ms = now_ms() - 60 * 60_000
    async with redis.asyncio.Redis.from_url(redis_url) as client, running(settings) as stack:
        await send(stack, 0, at_ms)
        await stack.drained()
        await client.config_set("maxmemory", "1")
        try:
            await send(stack, 100, at_ms + 10 * 60_000)
            # It answers a PING all the same: the health of the stages that write must come from their writes.
            await until_health(stack, "ingest", "redis", serving_expected=False)
        finally:
            await client.config_set("maxmemory", "0")
        await until_health(stack, "ingest", "redis", serving_expected=True)
        await stack.finish()
    assert await counted(postgres_dsn) == 2 * len(BULLISH)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MB, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    for parent in [folder, *folder.parents[:4]]:
        if parent.owner() == tmp_path.owner() and parent != Path("/"):
            parent.chmod(0o755)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path, room: Callable[[], int]) -> None:
    """Leave no room on the disk."""
    with path.open("wb") as file:
        while room() > FILL // 4:
            file.write(b"x" * min(FILL, room()))
            file.flush()


async def test_a_full_disk_under_postgresql_holds_nothing_else_up_and_loses_nothing(
    small_disk: Path, settings: Settings, clean: None
) -> None:
    async with EmbeddedServers(small_disk, nats=False, redis=False) as servers:
        settings.storage.postgresql.dsn = SecretStr(servers.postgres_dsn)
        at_ms = now_ms() - 5 * 60 * 60_000
        async with running(settings) as stack:
            await send(stack, 0, at_ms)
            await stack.drained()
            await until_health(stack, "aggregator", "postgresql", serving_expected=True)
            # A table as large as the room that is left, so that the next rows need more.
            connection = await asyncpg.connect(servers.postgres_dsn)
            await connection.close()
            filler = small_disk / "filler"
            fill(filler, lambda: os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize)
            # Four hours of windows: more rows than the pages that are there have room for.
            await send(stack, 100, at_ms + 4 * 60 * 60_000)
            await until_health(stack, "aggregator", "postgresql", serving_expected=False)
            # The live score is not held up.
            errors = scores(stack)
            assert not errors
            filler.unlink()
            await until_health(stack, "aggregator", "postgresql", serving_expected=True)
            await stack.finish()
        assert await counted(servers.postgres_dsn) == 2 * len(BULLISH)
