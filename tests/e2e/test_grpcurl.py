"""The real grpcurl against every stage, as a user would ask."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import stamina

from tests.e2e.conftest import System
from tests.e2e.test_pipeline import PACKAGE, SERVICES

GRPCURL = Path(__file__).resolve().parents[2] / ".peers" / "bin" / "grpcurl"

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not GRPCURL.exists(), reason="grpcurl is not built: make peers")]


async def grpcurl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(GRPCURL), "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_list_describe_and_health_of_every_stage(system: System) -> None:
    for stage, service in SERVICES.items():
        address = system.stack.addresses[stage]
        listed = await grpcurl(address, "list")
        assert f"{PACKAGE}.{service}" in listed.splitlines()
        assert f"service {service} {{" in await grpcurl(address, "describe", f"{PACKAGE}.{service}")
        asked = ("-d", json.dumps({"service": f"{PACKAGE}.{service}"}), address, "grpc.health.v1.Health/Check")
        async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=60, wait_max=0.5):
            with attempt:
                assert json.loads(await grpcurl(*asked)) == {"status": "SERVING"}


async def test_the_line_that_the_demo_prints(system: System) -> None:
    line = (
        "-d",
        '{"symbol": "BTC"}',
        system.stack.addresses["gateway"],
        f"{PACKAGE}.{SERVICES['gateway']}/GetSocialSentiment",
    )
    sentiment = json.loads(await grpcurl(*line))["sentiment"]
    assert sentiment["symbol"] == "BTC"
    assert 0 <= sentiment["social_sentiment_score"] <= 1
    assert sentiment["source"].startswith("SENTIMENT_SOURCE_")
