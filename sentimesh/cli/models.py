"""``sentimesh models``: the sentiment models that are here, and which of them scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from scorer_svc.manifest import Manifest, read_manifest
from scorer_svc.model_files import find_model, shipped_models
from scorer_svc.sentiment import ModelError
from sentimesh.errors import SentimeshError
from sentimesh.model_store import AUTO, FINBERT, ModelStore, ModelStoreError
from sentimesh.settings import Settings, load_settings, source_of
from sentimesh.telemetry import configure_logging

app = typer.Typer(
    help="Look at the sentiment models that are here, fetch some, and choose one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
VADER = "vader"

ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name, as `sentimesh models list` shows it.")]


@app.command("list")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    config: ConfigOption = None,
) -> None:
    """List the models: name, version, megabytes, origin; a star is before the one that scores."""
    settings, store = _opened(config)
    primary = store.primary(settings.model.primary)
    for name, folder in store.folders().items():
        size = sum(path.stat().st_size for path in folder.iterdir())
        try:
            manifest = read_manifest(folder)
            version = manifest.version if manifest else find_model(store.source(name), store.folder).version
            origin = _origin(manifest) if manifest or name in shipped_models() else str(folder)
        except ModelError as error:
            manifest, version, origin = None, "unusable", f"{error}"
        if as_json:
            known = manifest.model_dump() if manifest else {"name": name, "version": version, "source": origin}
            typer.echo(orjson.dumps(known | {"bytes": size, "primary": name == primary}))
        else:
            typer.echo(f"{'*' if name == primary else ' '} {name:<20} {version:<28} {size / 1e6:>7.1f} MB  {origin}")
    if not as_json:
        typer.echo(f"model.primary is {settings.model.primary}, fallback {settings.model.fallback}; {store.folder}")


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(metavar="finbert|FOLDER|FILE", help="A folder, or an ONNX file beside the others.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name in the store; needed for a folder or file.")
    ] = None,
    vocabulary: Annotated[
        bool | None,
        typer.Option("--vocabulary/--no-vocabulary", help="Add the crypto vocabulary; FinBERT gets it by default."),
    ] = None,
    keep_float: Annotated[bool, typer.Option("--float", help="Keep 32-bit weights: larger and slower.")] = False,
    config: ConfigOption = None,
) -> None:
    """Fetch FinBERT from the Hugging Face hub, or take a model from this machine; it is chosen with `use`.

    The files are checked, the weights quantised to int8, and the model scores two texts before it takes its name;
    what is interrupted goes on when the command is run again.
    """
    # Imported when it is wanted: ONNX and huggingface_hub take longer to load than the rest.
    from sentimesh.model_store.pull import Making, pull_finbert, pull_local

    settings, store = _opened(config)
    making = Making(vocabulary=source == FINBERT if vocabulary is None else vocabulary, int8=not keep_float)
    if source == FINBERT:
        manifest = pull_finbert(store, settings.model.finbert, making, name=name or FINBERT)
    elif not Path(source).exists():
        raise ModelStoreError(f"there is no {source}: give {FINBERT}, or a folder or ONNX file that is here")
    elif name is None:
        raise ModelStoreError(f"the model of {source} has no name yet: give one with --name")
    else:
        manifest = pull_local(store, Path(source), name, making)
    typer.echo(f"{manifest.version}: {_origin(manifest)}; labels {', '.join(manifest.labels)}")
    if store.primary(settings.model.primary) != manifest.name:
        typer.echo(f"`sentimesh models use {manifest.name}` makes it score")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Without, all of them.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check every checksum, load each model and score with it; exit code 1 when one fails."""
    _, store = _opened(config)
    failed = list[str]()
    for name in names or store.folders():
        try:
            typer.echo(f"{name}: ok, {store.verify(name)}")
        except SentimeshError as error:
            failed.append(name)
            typer.echo(f"{name}: {error}")
    if failed:
        raise ModelStoreError(f"not as it should be: {', '.join(failed)}")


@app.command()
def remove(name: Name, config: ConfigOption = None) -> None:
    """Delete a stored model; the one in use is refused."""
    settings, store = _opened(config)
    options = settings.model
    store.remove(name, in_use={store.primary(options.primary), options.fallback, options.shadow_model or ""})
    typer.echo(f"{name} removed")


@app.command()
def use(name: Name, config: ConfigOption = None) -> None:
    """Choose the model that scores from the next start on, once it has loaded here.

    It is what `model.primary: auto` stands for; a name set there wins, so then this is refused.
    """
    settings, store = _opened(config)
    if settings.model.primary not in (AUTO, name):
        raise ModelStoreError(
            f"model.primary is set to {settings.model.primary} ({source_of(config)}) and would win: "
            f"set it to {name} there, or to {AUTO}"
        )
    typer.echo(f"{store.use(name)} scores from the next start on")


def _opened(config: Path | None) -> tuple[Settings, ModelStore]:
    settings = load_settings(config)
    configure_logging("error", json=settings.telemetry.log_json)
    return settings, ModelStore.configured(settings)


def _origin(manifest: Manifest | None) -> str:
    if manifest is None:
        return "shipped"
    revision = f" at {manifest.revision[:12]}" if manifest.revision else ""
    vocabulary = f"{manifest.vocabulary} tokens added, " if manifest.vocabulary else ""
    return f"{manifest.source}{revision}, {vocabulary}{manifest.quantization or 'float'}, licence {manifest.licence}"
