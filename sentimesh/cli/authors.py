"""``sentimesh authors``: what was learned of accounts from their posts, and what of it is taken back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer

from sentimesh import known_bots, learning
from sentimesh.author_cache import AuthorCache
from sentimesh.author_history import AUTHOR, FLOODING, TEXT, AuthorRecord, Evidence
from sentimesh.bot_store import BotStore
from sentimesh.build import now_ms
from sentimesh.bus import Bus
from sentimesh.cli.bots import ConfigOption, counted, open_redis, printable
from sentimesh.cli.gateway import show_time
from sentimesh.errors import SentimeshError
from sentimesh.learning import Learned
from sentimesh.settings import Settings, load_settings
from sentimesh.storage import connect
from sentimesh.storage.authors import AuthorStore
from sentimesh.telemetry import Metrics, configure_logging

app = typer.Typer(
    help="Look at what was learned of accounts from their posts, learn anew, or clear one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SHOWN_BOTS = 20
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="For example twitter:123.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


class AuthorsError(SentimeshError):
    """What was learned cannot be looked at or changed as asked."""


@app.command()
def learn(config: ConfigOption = None) -> None:
    """Judge all accounts from the posts of the last days now, and have known bots take effect."""
    settings = _settings(config)
    learned = asyncio.run(_learn(settings))
    if learned is None:
        raise AuthorsError("somebody else is learning right now: see what it finds with `sentimesh authors list`")
    typer.echo(
        f"{learned.messages:,} messages, {counted(learned.accounts)} judged in {learned.seconds:.1f} s; "
        f"{learned.bots:,} learned bots; something is held against {counted(learned.held_against)}"
    )
    for record in learned.new_bots[:SHOWN_BOTS]:
        typer.echo(printable(f"new bot {record.author}: {_reason(record)}"))
    if len(learned.new_bots) > SHOWN_BOTS:
        typer.echo(f"and {len(learned.new_bots) - SHOWN_BOTS:,} more new bots: see `sentimesh authors list --bots`")
    for author in learned.freed[:SHOWN_BOTS]:
        typer.echo(printable(f"no longer a bot: {author}"))
    if len(learned.freed) > SHOWN_BOTS:
        typer.echo(f"and {len(learned.freed) - SHOWN_BOTS:,} more that are no longer bots")
    if learned.forgotten:
        typer.echo(f"{counted(learned.forgotten)} forgotten, not heard of for long")


@app.command("list")
def show_all(
    bots: Annotated[bool, typer.Option("--bots", help="Only those learned to be bots.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 1000,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List bots, then the others from the least credible on."""
    for record in asyncio.run(_list(_settings(config), limit, bots)):
        if as_json:
            typer.echo(orjson.dumps(_plain(record)))
        else:
            state = _reason(record) if record.is_known_bot else "cleared" if record.cleared_ms else ""
            typer.echo(
                printable(f"{record.author:<32} {record.credibility:.3f} x{record.multiplier:.2f} {state}").rstrip()
            )


@app.command()
def show(account: Account, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Say what is known of one account, and from what."""
    record = asyncio.run(_show(_settings(config), account))
    if record is None:
        raise _unknown(account)
    if as_json:
        typer.echo(orjson.dumps(_plain(record)))
        return
    for line in _described(record):
        typer.echo(printable(line))


@app.command()
def clear(account: Account, config: ConfigOption = None) -> None:
    """Say that an account is no bot: at once, and until posts that it writes from now on make it one again."""
    listed = asyncio.run(_clear(_settings(config), account))
    typer.echo(printable(f"{account} is cleared; only posts from now on count"))
    if listed:
        typer.echo(
            printable(
                f"it stays a known bot, because a list names it or it was added by hand: "
                f"`sentimesh bots remove {account}` takes it off for good"
            )
        )


def _described(record: AuthorRecord) -> Iterable[str]:
    verdict = f"a known bot since {show_time(record.bot_since_ms)} UTC, {record.rule.replace('_', ' ')}"
    if not record.is_known_bot:
        verdict = "not learned to be a bot"
    elif not record.bot_since_ms:
        verdict = "a known bot, put into the table by somebody else"
    yield f"{record.author}: {verdict}"
    yield f"credibility {record.credibility:.3f}; its posts' credibility is multiplied by {record.multiplier:.2f}"
    if record.cleared_ms:
        yield f"cleared {show_time(record.cleared_ms)} UTC: posts until then do not count"
    if record.evidence is None:
        yield "nothing was learned from posts"
        return
    until = f", its newest post {show_time(record.last_seen_ms)} UTC" if record.last_seen_ms else ""
    yield f"last judged {show_time(record.learned_ms)} UTC{until}"
    if record.cleared_ms >= record.learned_ms:
        yield "what it was judged by before it was cleared:"
    yield from _evidence(record.evidence)


def _evidence(evidence: Evidence) -> Iterable[str]:
    days = f"{evidence.days} day{'' if evidence.days == 1 else 's'}"
    yield f"posts: {evidence.posts:,} on {days}"
    yield (
        f"mean credibility of its own {evidence.mean_credibility:.3f}, of all accounts of the platform "
        f"{evidence.population_credibility:.3f}"
    )
    yield f"under the threshold: {evidence.low_share:.0%}"
    yield f"its own words again: {evidence.repeat_share:.0%}"
    yield f"late copies of a text of many posts: {evidence.late_copy_share:.0%}"
    yield f"one of the two before: {evidence.flooding_share:.0%}"
    if evidence.fingerprint_posts > 1:
        yield f"most frequent text: {evidence.fingerprint_posts:,} posts, fingerprint {evidence.fingerprint:016x}"


def _reason(record: AuthorRecord) -> str:
    evidence = record.evidence
    if evidence is None:
        return "put into the table by somebody else"
    if record.rule == FLOODING:
        return f"flooding, {evidence.flooding_share:.0%} of {evidence.posts:,} posts repeated or copied"
    return f"persistently low, {evidence.low_share:.0%} of {evidence.posts:,} posts under the threshold"


def _plain(record: AuthorRecord) -> dict[str, object]:
    fields = dataclasses.asdict(record)
    fields["texts"] = len(record.texts) // TEXT.itemsize
    if record.evidence is not None:
        fields["evidence"]["fingerprint"] = f"{record.evidence.fingerprint:016x}"
    return fields


def _settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    configure_logging("error", json=settings.telemetry.log_json)
    return settings


def _unknown(account: str) -> AuthorsError:
    return AuthorsError(f"nothing is known of {printable(account)}: it has not written in the days that were judged")


def _named(account: str) -> str:
    name = account.strip()
    if not AUTHOR.fullmatch(name):
        raise AuthorsError(
            f"{printable(account)[:100]!r} is no account: write {{platform}}:{{id}}, for example twitter:123"
        )
    return name


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[AuthorStore]:
    dsn = settings.storage.postgresql.dsn
    if dsn is None:
        raise AuthorsError(
            "storage.postgresql.dsn is not configured, and what was learned is there: set it in the configuration, "
            "or the variable SENTIMESH__STORAGE__POSTGRESQL__DSN"
        )
    pool = await connect(dsn)
    try:
        yield AuthorStore(pool)
    finally:
        await pool.close()


async def _learn(settings: Settings) -> Learned | None:
    url = settings.nats.url
    if url is None:
        raise AuthorsError(
            "nats.url is not configured, and the posts are there: set it in the configuration, "
            "or the variable SENTIMESH__NATS__URL"
        )
    bus = Bus(url, retention_hours=settings.kafka.retention_hours, partitions=settings.kafka.partitions)
    async with _store(settings) as store, open_redis(settings) as client, bus:
        metrics = Metrics()
        refresher = known_bots.configured(settings, metrics, client, store.pool)
        learner = learning.configured(settings, metrics, bus, store, client, refresher.refresh_learned)
        return await learner.learn()


async def _list(settings: Settings, limit: int, bots_only: bool) -> list[AuthorRecord]:
    async with _store(settings) as store:
        return await store.least_credible(limit, bots_only=bots_only)


async def _show(settings: Settings, account: str) -> AuthorRecord | None:
    name = _named(account)
    async with _store(settings) as store:
        return await store.get(name)


async def _clear(settings: Settings, account: str) -> bool:
    """Clear an account in PostgreSQL, then in Redis; return whether it is a known bot all the same."""
    name = _named(account)
    async with _store(settings) as store, open_redis(settings) as client:
        if not await store.clear(name, now_ms()):
            raise _unknown(name)
        await AuthorCache(client).forget(name)
        return await BotStore(client).unlist(known_bots.LEARNED, name)
