"""Puts the commands together and turns errors into one line."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from sentimesh.cli import (
    authors,
    baseline,
    bots,
    config,
    demo,
    doctor,
    explain,
    get,
    history,
    models,
    replay,
    run,
    score,
    spikes,
    symbols,
    up,
)
from sentimesh.errors import SentimeshError

app = typer.Typer(
    name="sentimesh",
    help="Live crowd sentiment for crypto symbols.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True, rich_markup_mode=None)
config_app.command("check")(config.check)
config_app.command("show")(config.show)
app.add_typer(config_app, name="config")
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("run")(run.run)
app.command("replay")(replay.replay)
app.command("score")(score.score)
app.command("symbols")(symbols.symbols)
app.command("get")(get.get)
app.command("history")(history.history)
app.command("spikes")(spikes.spikes)
app.command("explain")(explain.explain)
app.command("doctor")(doctor.doctor)
app.add_typer(baseline.app, name="baseline")
app.add_typer(bots.app, name="bots")
app.add_typer(authors.app, name="authors")
app.add_typer(models.app, name="models")


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.", is_eager=True),
) -> None:
    """Live crowd sentiment for crypto symbols."""


def _sentences(error: BaseException) -> list[SentimeshError]:
    """Return the errors meant for a user inside an error, through exception groups."""
    if isinstance(error, SentimeshError):
        return [error]
    if isinstance(error, BaseExceptionGroup):
        return [found for inner in error.exceptions for found in _sentences(inner)]
    return []


def main() -> None:
    """Run the command line; an error is one line on standard error and exit code 1 (2 for wrong usage)."""
    debug = "--debug" in sys.argv[1:]
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        sentences = _sentences(error)
        text = str(sentences[0]) if sentences else f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {' '.join(text.split())}")
        raise SystemExit(1) from None
