"""Which sources a configuration asks for."""

from __future__ import annotations

from ingest_svc.sources.simulator import SimulatorSource
from sentimesh.settings import Settings
from sentimesh.source import Source

SIMULATOR_SEED = 7
SIMULATOR_POSTS_PER_MINUTE = 120


def configured_sources(settings: Settings, *, simulate: bool) -> list[Source]:
    """Return the sources to read; ``simulate`` adds the simulator in real time."""
    sources: list[Source] = []
    if simulate:
        sources.append(
            SimulatorSource(
                seed=SIMULATOR_SEED,
                symbols=settings.symbols,
                posts_per_minute=SIMULATOR_POSTS_PER_MINUTE,
                speed=1.0,
            )
        )
    return sources
