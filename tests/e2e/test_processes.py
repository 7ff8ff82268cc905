"""The five stages as five processes, the way they are deployed: `sentimesh run STAGE` on shared servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import stamina

from sentimesh.build import now_ms
from sentimesh.bus import Bus
from sentimesh.cli.gateway import GatewayError
from sentimesh.cli.get import ask
from sentimesh.connections import STAGES
from sentimesh.embedded import free_port
from sentimesh.settings import Settings
from tests.e2e.test_pipeline import BULLISH, tweet

SENTIMESH = str(Path(sys.executable).with_name("sentimesh"))


@pytest.fixture
def environment(nats_url: str, redis_url: str, postgres_dsn: str) -> dict[str, str]:
    ports = {f"SENTIMESH__SERVER__{stage.upper()}_PORT": str(free_port()) for stage in STAGES}
    return {
        **os.environ,
        **ports,
        "SENTIMESH__SERVER__METRICS_PORT": "0",
        "SENTIMESH__NATS__URL": nats_url,
        "SENTIMESH__STORAGE__REDIS__URL": redis_url,
        "SENTIMESH__STORAGE__POSTGRESQL__DSN": postgres_dsn,
        "SENTIMESH__MODEL__PRIMARY": "vader",
    }


@contextlib.asynccontextmanager
async def running(stage: str, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        SENTIMESH, "run", stage, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    if stage != "gateway":
        assert "stage.drained" in errors.decode()


async def test_posts_go_through_five_processes_and_sigterm_drains_each(
    settings: Settings, clean: None, environment: dict[str, str]
) -> None:
    address = f"127.0.0.1:{environment['SENTIMESH__SERVER__GATEWAY_PORT']}"
    async with contextlib.AsyncExitStack() as exits:
        for stage in STAGES:
            await exits.enter_async_context(running(stage, environment))
        assert settings.nats.url is not None
        bus = await exits.enter_async_context(Bus(settings.nats.url))
        for number, text in enumerate(BULLISH):
            raw = tweet(number, text, now_ms() - 1000)
            await (await bus.publish("social.raw.twitter", raw, f"test/{number}"))
        async for attempt in stamina.retry_context(
            on=(AssertionError, GatewayError), attempts=None, timeout=120, wait_max=0.5
        ):
            with attempt:
                sentiment = await ask("BTC", address)
                assert sentiment.aggregate.post_count == len(BULLISH)
    assert sentiment.data_available


async def test_a_stage_without_servers_says_what_to_configure() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SENTIMESH_")}
    process = await asyncio.create_subprocess_exec(
        SENTIMESH, "run", "filter", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    [line] = errors.decode().splitlines()
    assert line.startswith("error: nats.url and storage.redis.url not configured")
