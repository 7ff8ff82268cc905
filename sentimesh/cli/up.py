"""``sentimesh up``: everything in one process, serving until stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sentimesh.cli.run import stopped
from sentimesh.settings import Settings, load_settings
from sentimesh.sources import configured_sources
from sentimesh.stack import Stack
from sentimesh.telemetry import configure_logging


def up(
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
    simulate: Annotated[
        bool | None,
        typer.Option("--simulate/--no-simulate", help="Feed it simulated posts; default: only on embedded servers."),
    ] = None,
) -> None:
    """Start the servers that are not configured, and all stages; stop with Ctrl-C."""
    settings = load_settings(config)
    configure_logging(settings.telemetry.log_level, json=settings.telemetry.log_json)
    # Invented posts must never get into servers that others use without being asked for.
    asyncio.run(_up(settings, settings.nats.url is None if simulate is None else simulate))


async def _up(settings: Settings, simulate: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    async with Stack(settings) as stack:
        sources = configured_sources(settings, simulate=simulate)
        for source in sources:
            stack.run_source(source)
        stack.metrics.serve(settings.server.host, settings.server.metrics_port)
        for name, address in stack.addresses.items():
            console.print(f"{name:<11} grpc {address}")
        console.print(f"{'metrics':<11} http://{settings.server.host}:{settings.server.metrics_port}/metrics")
        names = ", ".join(source.name for source in sources)
        console.print(f"sources: {names}" if names else "no source is configured: add --simulate for simulated posts")
        await stopped()
        console.print("stopping: finishing what has been pulled")
