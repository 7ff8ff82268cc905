"""``sentimesh authors`` and ``sentimesh bots refresh`` on real servers: what they print, change and refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from pydantic import SecretStr
from typer.testing import CliRunner

from filter_svc.author_history import RedisAuthorHistory
from filter_svc.known_bots import RedisKnownBots
from sentimesh.author_cache import AuthorCache
from sentimesh.build import now_ms
from sentimesh.bus import FILTERED, REJECTED, Bus
from sentimesh.cli.app import app
from sentimesh.errors import SentimeshError
from tests.sentimesh.test_learning import flood, low, people

SERVERS = ("NATS__URL", "STORAGE__REDIS__URL", "STORAGE__POSTGRESQL__DSN")


@dataclass
class Here:
    bus: Bus
    client: redis.asyncio.Redis
    pool: asyncpg.Pool[Any]

    async def judged(self, author: str) -> tuple[bool, float]:
        """What the filter is told of an author."""
        [is_bot] = await RedisKnownBots(self.client).contains([author])
        [multiplier] = await RedisAuthorHistory(self.client).multipliers([author])
        return is_bot, multiplier


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENTIMESH_CONFIG", *(f"SENTIMESH__{server}" for server in SERVERS)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def here(
    nats_url: str, redis_url: str, pool: asyncpg.Pool[Any], postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Here]:
    """The configured servers, without posts, bots and what was learned."""
    name = await pool.fetchval("SELECT current_database()")
    urls = (nats_url, redis_url, f"{postgres_dsn.rsplit('/', 1)[0]}/{name}")
    for server, url in zip(SERVERS, urls, strict=True):
        monkeypatch.setenv(f"SENTIMESH__{server}", url)
    async with Bus(SecretStr(nats_url)) as bus, redis.asyncio.Redis.from_url(redis_url) as client:
        for topic in (FILTERED, REJECTED):
            await bus.jetstream.purge_stream(topic.stream)
        await forget(client)
        yield Here(bus, client, pool)
        await forget(client)


async def forget(client: redis.asyncio.Redis) -> None:
    for pattern in ("social:known_bots*", "social:author_credibility*"):
        for name in [name async for name in client.scan_iter(pattern)]:
            await client.delete(name)


async def publish(here: Here) -> None:
    now = now_ms()
    for topic, posts in ((FILTERED, [*people(now), *flood(now)]), (REJECTED, low(now))):
        messages = [post.message(is_rejected=topic is REJECTED) for post in posts]
        ids = [f"{now}/{post.id}" for post in posts]
        await here.bus.publish_confirmed(
            [(f"{topic.prefix}.BTC", message, id_, {}) for message, id_ in zip(messages, ids, strict=True)]
        )


async def run(*arguments: str) -> list[str]:
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


async def refusal(*arguments: str) -> str:
    """Return the error that the entry point prints as one line, with exit code 1."""
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))
    assert result.exit_code == 1
    assert isinstance(result.exception, SentimeshError), result.exception
    return str(result.exception)


async def test_learning_on_demand_says_what_changed_and_the_filter_knows_at_once(here: Here) -> None:
    await publish(here)
    assert await here.judged("twitter:flood") == (False, 1.0)
    [summary, *changes] = await run("authors", "learn")
    assert summary.startswith("84 messages, 22 accounts judged in ")
    assert summary.endswith(" s; 2 learned bots; something is held against 1 account")
    assert sorted(changes) == [
        "new bot twitter:flood: flooding, 92% of 12 posts repeated or copied",
        "new bot twitter:low: persistently low, 100% of 12 posts under the threshold",
    ]
    assert await here.judged("twitter:flood") == (True, 1.0)
    assert await here.judged("twitter:low") == (True, 0.625)
    assert await here.judged("twitter:p1") == (False, 1.0)
    assert len(await run("authors", "learn")) == 1


async def test_what_was_learned_is_listed_and_shown(here: Here) -> None:
    await publish(here)
    await run("authors", "learn")
    lines = await run("authors", "list")
    assert [line.split()[0] for line in lines[:2]] == ["twitter:low", "twitter:flood"]
    assert len(lines) == 22
    assert lines[-1].split()[2:] == ["x1.00"]
    assert await run("authors", "list", "--bots") == lines[:2]
    assert lines[1].endswith("x1.00 flooding, 92% of 12 posts repeated or copied")
    [first] = await run("authors", "list", "--json", "--limit", "1")
    assert json.loads(first)["author"] == "twitter:low"
    shown = await run("authors", "show", "twitter:flood")
    assert shown[0].startswith("twitter:flood: a known bot since 20")
    assert shown[0].endswith("UTC, flooding")
    # Twelve hours up to now.
    assert shown[3] in ("posts: 12 on 1 day", "posts: 12 on 2 days")
    assert shown[4:] == [
        "mean credibility of its own 0.500, of all accounts of the platform 0.597",
        "under the threshold: 0%",
        "its own words again: 92%",
        "late copies of a text of many posts: 0%",
        "one of the two before: 92%",
        "most frequent text: 12 posts, fingerprint 000000000000004d",
    ]
    [plain] = await run("authors", "show", "twitter:flood", "--json")
    assert json.loads(plain)["evidence"]["fingerprint"] == "000000000000004d"


async def test_who_is_cleared_is_so_at_once_and_stays_so(here: Here) -> None:
    await publish(here)
    await run("authors", "learn")
    for author in ("twitter:flood", "twitter:low"):
        assert await run("authors", "clear", author) == [f"{author} is cleared; only posts from now on count"]
        assert await here.judged(author) == (False, 1.0)
    await run("authors", "learn")
    assert await run("bots", "refresh") == ["0 known bots"]
    assert await here.judged("twitter:flood") == (False, 1.0)
    shown = await run("authors", "show", "twitter:flood")
    assert shown[0] == "twitter:flood: not learned to be a bot"
    assert shown[2].startswith("cleared 20")
    assert "what it was judged by before it was cleared:" in shown
    assert "its own words again: 92%" in shown


async def test_who_is_listed_stays_listed(here: Here) -> None:
    await publish(here)
    await run("authors", "learn")
    await run("bots", "add", "twitter:flood")
    [_, stays] = await run("authors", "clear", "twitter:flood")
    assert stays == (
        "it stays a known bot, because a list names it or it was added by hand: "
        "`sentimesh bots remove twitter:flood` takes it off for good"
    )
    assert await here.judged("twitter:flood") == (True, 1.0)


async def test_bots_are_refreshed_from_lists_and_what_was_learned(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bots.txt"
    path.write_text("twitter:9\n")
    monkeypatch.setenv("SENTIMESH__SPAM_FILTER__KNOWN_BOT_SOURCES", json.dumps([str(path)]))
    await publish(here)
    await run("authors", "learn")
    assert await run("bots", "refresh") == ["3 known bots"]
    path.write_text("twitter:9\ntwitter:10\n")
    assert await run("bots", "refresh") == ["4 known bots"]
    path.write_text("<html>\n")
    assert f"what was there before stays for what cannot be read: {path}: " in await refusal("bots", "refresh")
    assert (await here.judged("twitter:10"))[0]


async def test_what_cannot_be_done_is_one_sentence(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing is known of twitter:1" in await refusal("authors", "show", "twitter:1")
    assert "nothing is known of twitter:1" in await refusal("authors", "clear", "twitter:1")
    assert "'123' is no account: write {platform}:{id}" in await refusal("authors", "clear", "123")
    async with AuthorCache(here.client).lease() as token:
        assert token is not None
        assert "somebody else is learning right now" in await refusal("authors", "learn")
    monkeypatch.setenv("SENTIMESH__STORAGE__POSTGRESQL__DSN", "postgresql://geheim:geheim@127.0.0.1:9/x")
    message = await refusal("authors", "list")
    assert "check storage.postgresql.dsn" in message
    assert "geheim" not in message
    monkeypatch.delenv("SENTIMESH__STORAGE__POSTGRESQL__DSN")
    for arguments in (["learn"], ["list"], ["show", "twitter:1"], ["clear", "twitter:1"]):
        assert "storage.postgresql.dsn is not configured" in await refusal("authors", *arguments)
    assert "there is nothing to refresh from" in await refusal("bots", "refresh")


async def test_each_server_that_is_not_configured_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTIMESH__NATS__URL")
    assert "nats.url is not configured" in await refusal("authors", "learn")
    monkeypatch.delenv("SENTIMESH__STORAGE__REDIS__URL")
    for arguments in (["authors", "clear", "twitter:1"], ["bots", "refresh"]):
        assert "storage.redis.url is not configured" in await refusal(*arguments)
