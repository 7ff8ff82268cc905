"""``sentimesh config``: check a configuration, or show what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from sentimesh.settings import load_settings, masked, source_of

_Path = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="YAML file; without it, the one that SENTIMESH_CONFIG names.")
]


def check(path: _Path = None) -> None:
    """Say whether a configuration can be used; exit code 1 and the reason if it cannot."""
    settings = load_settings(path)
    sources = [name for name, source in settings.sources if source.enabled]
    embedded = [name for name, url in settings.server_urls().items() if url is None]
    typer.echo(f"ok: {source_of(path)}")
    typer.echo(f"  symbols: {len(settings.symbols)}; sources enabled: {', '.join(sources) or 'none'}")
    typer.echo(f"  model: {settings.model.primary}; embedded servers: {', '.join(embedded) or 'none'}")


def show(path: _Path = None) -> None:
    """Print the whole configuration as YAML: defaults, file and environment put together, secrets as ***."""
    typer.echo(
        yaml.safe_dump(masked(load_settings(path)), sort_keys=False, allow_unicode=True, default_flow_style=None),
        nl=False,
    )
