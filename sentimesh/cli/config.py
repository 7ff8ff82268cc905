"""``sentimesh config``: check a configuration, or show what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from sentimesh.model_store import ModelStore
from sentimesh.settings import load_settings, masked, source_of

_Path = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="YAML file; without it, the one that SENTIMESH_CONFIG names.")
]


def check(path: _Path = None) -> None:
    """Say whether a configuration can be used; exit code 1 and the reason if it cannot."""
    settings = load_settings(path)
    primary = ModelStore.configured(settings).primary(settings.model.primary)
    typer.echo(f"ok: {source_of(path)}: {len(settings.symbols)} symbols, model {primary}")


def show(path: _Path = None) -> None:
    """Print the whole configuration as YAML: defaults, file and environment put together, secrets as ***."""
    typer.echo(
        yaml.safe_dump(masked(load_settings(path)), sort_keys=False, allow_unicode=True, default_flow_style=None),
        nl=False,
    )
