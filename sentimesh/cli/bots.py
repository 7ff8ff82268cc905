"""``sentimesh bots``: the accounts that are known to be bots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import redis.asyncio
import typer

from sentimesh import known_bots
from sentimesh.bot_lists import member, read_list, shown
from sentimesh.bot_store import BotStore, State
from sentimesh.cli.gateway import show_time
from sentimesh.errors import SentimeshError
from sentimesh.settings import Settings, list_source, load_settings
from sentimesh.storage.postgres import open_pool
from sentimesh.telemetry import Metrics, configure_logging

app = typer.Typer(
    help="Look at the accounts that are known to be bots, add some, or clear some.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BY_HAND = "by hand"


class BotsError(SentimeshError):
    """The known bots cannot be looked at or changed as asked."""


class Platform(StrEnum):
    """Where an account is."""

    twitter = "twitter"
    reddit = "reddit"
    telegram = "telegram"
    discord = "discord"


ConfigOption = Annotated[Path | None, typer.Option(help="Configuration file.")]
PlatformOption = Annotated[
    Platform | None, typer.Option(help="Of which platform ids alone are; without, of every platform.")
]
Accounts = Annotated[list[str], typer.Argument(metavar="ID", help="Ids such as 123, or twitter:123.")]


@app.command("import")
def take_in(
    sources: Annotated[list[str], typer.Argument(metavar="FILE|URL", help="An id a line, or a JSON list.")],
    platform: PlatformOption = None,
    config: ConfigOption = None,
) -> None:
    """Add the accounts of lists by hand, so that a refresh keeps them; those removed by hand stay removed.

    Nothing is added before every list is read.
    """
    settings = _settings(config)
    listed = asyncio.run(_read(sources))
    members = {_named(found, platform) for one in listed.values() for found in one}
    new, total = asyncio.run(_change(settings, members, respect_removed=True))
    for source, one in listed.items():
        typer.echo(f"{shown(source)}: {counted(len(one))}")
    typer.echo(f"{counted(new)} new; {total:,} known bots")


@app.command()
def add(ids: Accounts, platform: PlatformOption = None, config: ConfigOption = None) -> None:
    """Make accounts known bots, at once and until they are removed."""
    settings = _settings(config)
    members = _members(ids, platform)
    new, total = asyncio.run(_change(settings, members, respect_removed=False))
    typer.echo(f"{counted(new)} added{_known_before(len(members) - new)}; {total:,} known bots")


@app.command()
def remove(ids: Accounts, platform: PlatformOption = None, config: ConfigOption = None) -> None:
    """Clear accounts, at once and for good, whichever list names them; `add` takes that back."""
    settings = _settings(config)
    members = _members(ids, platform)
    found, total = asyncio.run(_clear(settings, members))
    unknown = len(members) - found
    text = f"{counted(found)} removed"
    if unknown:
        text += f", {unknown:,} of those named not known and kept off from now on"
    typer.echo(f"{text}; {total:,} known bots")


@app.command()
def refresh(config: ConfigOption = None) -> None:
    """Read the configured lists and what was learned anew, and put the set together from them now."""
    settings = _settings(config)
    total, unread = asyncio.run(_refresh(settings))
    typer.echo(f"{total:,} known bots")
    if unread:
        raise BotsError(f"what was there before stays for what cannot be read: {'; '.join(unread)}")


@app.command("list")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    config: ConfigOption = None,
) -> None:
    """List the known bots, where each is from, and how old the lists are."""
    state, origins, removed = asyncio.run(_look(_settings(config)))
    sources = {"manual": BY_HAND} | {part.name: part.source for part in state.parts}
    for account in sorted(origins):
        lists = sorted(sources[name] for name in origins[account])
        if as_json:
            typer.echo(orjson.dumps({"author": account, "from": lists}))
        else:
            typer.echo(printable(f"{account:<32} {', '.join(lists)}"))
    if not as_json:
        for line in _summary(state, origins, removed):
            typer.echo(printable(line))


def _summary(state: State, origins: Mapping[str, object], removed: Sequence[str]) -> Iterable[str]:
    when = f"last refreshed {show_time(state.refreshed_ms)} UTC" if state.refreshed_ms else "never refreshed"
    yield f"{len(origins):,} known bots, {when}"
    for part in state.parts:
        yield f"{part.source}: {counted(part.count)}, read {show_time(part.read_ms)} UTC"
    if removed:
        yield f"removed by hand: {', '.join(removed)}"


def counted(count: int) -> str:
    """Return so many accounts in words."""
    return f"{count:,} account{'' if count == 1 else 's'}"


def _known_before(count: int) -> str:
    return f", {count:,} known before" if count else ""


def printable(text: str) -> str:
    """Return text of strangers without what would steer the terminal."""
    return "".join(character for character in text if character.isprintable())


def _members(ids: Iterable[str], platform: Platform | None) -> set[str]:
    try:
        return {_named(member(text.strip()), platform) for text in ids}
    except ValueError as error:
        raise BotsError(f"{error}") from None


def _named(found: str, platform: Platform | None) -> str:
    """Return an account with the platform of the option."""
    if platform is None or found.startswith(f"{platform.value}:"):
        return found
    if ":" in found:
        raise BotsError(f"{found} is not of --platform {platform.value}: leave one of the two out")
    return f"{platform.value}:{found}"


def _settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    configure_logging("error", json=settings.telemetry.log_json)
    return settings


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    """Give a client of the configured Redis. Raises BotsError where none is configured."""
    url = settings.storage.redis.url
    if url is None:
        raise BotsError(
            "storage.redis.url is not configured, and the known bots are there: set it in the configuration, "
            "or the variable SENTIMESH__STORAGE__REDIS__URL"
        )
    try:
        client = redis.asyncio.Redis.from_url(url.get_secret_value(), socket_timeout=30, socket_connect_timeout=5)
    except ValueError:
        # From None: such an error may quote the URL.
        raise BotsError("storage.redis.url is no URL of Redis: write redis://host:port") from None
    async with client:
        yield client


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[BotStore]:
    async with open_redis(settings) as client:
        yield BotStore(client)


async def _read(sources: Sequence[str]) -> dict[str, frozenset[str]]:
    for source in sources:
        try:
            list_source(source)
        except ValueError as error:
            raise BotsError(f"a list cannot be read: {error}") from None
    return {source: await read_list(source) for source in dict.fromkeys(sources)}


async def _change(settings: Settings, members: set[str], *, respect_removed: bool) -> tuple[int, int]:
    async with _store(settings) as store:
        return await store.add(members, respect_removed=respect_removed)


async def _clear(settings: Settings, members: set[str]) -> tuple[int, int]:
    async with _store(settings) as store:
        return await store.remove(members)


async def _refresh(settings: Settings) -> tuple[int, list[str]]:
    """Return how many bots are known now, and what could not be read, each in a sentence."""
    dsn, unread = settings.storage.postgresql.dsn, list[str]()
    if dsn is None and not settings.spam_filter.known_bot_sources:
        raise BotsError(
            "there is nothing to refresh from: set spam_filter.known_bot_sources, storage.postgresql.dsn or both "
            "in the configuration"
        )
    async with open_redis(settings) as client, AsyncExitStack() as stack:
        pool = None
        if dsn is not None:
            pool = await open_pool(dsn)
            stack.push_async_callback(pool.close)
        refresher = known_bots.configured(settings, Metrics(), client, pool, on_unread=unread.append)
        return await refresher.refresh_now(), unread


async def _look(settings: Settings) -> tuple[State, dict[str, set[str]], list[str]]:
    async with _store(settings) as store:
        return await store.state(), await store.origins(), await store.removed()
