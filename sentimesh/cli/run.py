"""``sentimesh run``: one stage against configured servers."""

from __future__ import annotations

import asyncio
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import structlog
import typer

from sentimesh.settings import Settings, load_settings
from sentimesh.sources import configured_sources
from sentimesh.stack import Stack
from sentimesh.telemetry import configure_logging


class StageName(StrEnum):
    """The five stages."""

    ingest = "ingest"
    filter = "filter"
    scorer = "scorer"
    aggregator = "aggregator"
    gateway = "gateway"


def run(
    stage: Annotated[StageName, typer.Argument(help="The stage to run.")],
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
) -> None:
    """Run one stage until SIGTERM or SIGINT; what it has pulled by then is finished first."""
    settings = load_settings(config)
    configure_logging(settings.telemetry.log_level, json=settings.telemetry.log_json)
    asyncio.run(_run(settings, stage.value))


async def _run(settings: Settings, stage: str) -> None:
    async with Stack(settings, stages=[stage], allow_embedded=False) as stack:
        if stage == "ingest":
            for source in configured_sources(settings, simulate=False):
                stack.run_source(source)
        stack.metrics.serve(settings.server.host, settings.server.metrics_port)
        structlog.get_logger().info("stage.serving", stage=stage, address=stack.addresses[stage])
        await stopped()


async def stopped() -> None:
    """Wait for SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
