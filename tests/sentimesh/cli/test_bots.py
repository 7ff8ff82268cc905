"""``sentimesh bots`` on a real Valkey: what it prints, what it changes, how it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from typer.testing import CliRunner

from filter_svc.known_bots import RedisKnownBots
from sentimesh.bot_lists import PLATFORMS
from sentimesh.bot_store import BotStore
from sentimesh.cli.app import app
from sentimesh.cli.bots import Platform
from sentimesh.errors import SentimeshError
from sentimesh.known_bots import Refresher


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)
    monkeypatch.delenv("SENTIMESH__STORAGE__REDIS__URL", raising=False)


@pytest.fixture
async def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[redis.asyncio.Redis]:
    """The configured Redis, without known bots before and after."""
    monkeypatch.setenv("SENTIMESH__STORAGE__REDIS__URL", redis_url)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await forget(client)
        yield client
        await forget(client)


async def forget(client: redis.asyncio.Redis) -> None:
    for name in [name async for name in client.scan_iter("social:known_bots*")]:
        await client.delete(name)


async def run(*arguments: str) -> list[str]:
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["bots", *arguments]))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


async def refusal(*arguments: str) -> str:
    """Return the error that the entry point prints as one line, with exit code 1."""
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["bots", *arguments]))
    assert result.exit_code == 1
    assert isinstance(result.exception, SentimeshError), result.exception
    return str(result.exception)


async def test_what_is_added_counts_at_once_and_what_is_removed_no_more(client: redis.asyncio.Redis) -> None:
    bots = RedisKnownBots(client)
    asked = ["twitter:1", "telegram:1", "reddit:t2_x"]
    assert await run("add", "1", "--platform", "twitter") == ["1 account added; 1 known bots"]
    assert await run("add", "twitter:1", "reddit:t2_x") == ["1 account added, 1 known before; 2 known bots"]
    assert await bots.contains(asked) == [True, False, True]
    assert await run("remove", "twitter:1", "9") == [
        "1 account removed, 1 of those named not known and kept off from now on; 1 known bots"
    ]
    assert await bots.contains(asked) == [False, False, True]


async def test_lists_are_imported_and_kept(client: redis.asyncio.Redis, tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.json"
    first.write_text("1\n2\n")
    second.write_text('["2", "twitter:3"]')
    await run("remove", "twitter:3")
    arguments = ("import", str(first), str(second), "--platform", "twitter")
    assert await run(*arguments) == [f"{first}: 2 accounts", f"{second}: 2 accounts", "2 accounts new; 2 known bots"]
    assert (await run(*arguments))[-1] == "0 accounts new; 2 known bots"
    assert await RedisKnownBots(client).contains(["twitter:1", "reddit:1", "twitter:3"]) == [True, False, False]


async def test_nothing_is_imported_unless_every_list_can_be_read(client: redis.asyncio.Redis, tmp_path: Path) -> None:
    good, bad = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("1\n")
    bad.write_text("1\n\n<html>\n")
    assert f"{bad}:3: '<html>' is no account" in await refusal("import", str(good), str(bad))
    assert f"cannot read {tmp_path / 'absent'}" in await refusal("import", str(good), str(tmp_path / "absent"))
    assert "http or https" in await refusal("import", str(good), "ftp://a.example/list")
    assert await run("list") == ["0 known bots, never refreshed"]


async def test_the_list_says_where_each_is_from(client: redis.asyncio.Redis, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\ntwitter:2\n")
    await Refresher(BotStore(client), [str(path)], now_ms=lambda: 1_700_000_000_000).refresh()
    await run("add", "1", "discord:4")
    await run("remove", "reddit:5")
    assert await run("list") == [
        f"{'1':<32} {path}, by hand",
        f"{'discord:4':<32} by hand",
        f"{'twitter:2':<32} {path}",
        "3 known bots, last refreshed 2023-11-14 22:13 UTC",
        f"{path}: 2 accounts, read 2023-11-14 22:13 UTC",
        "removed by hand: reddit:5",
    ]
    assert [json.loads(line) for line in await run("list", "--json")] == [
        {"author": "1", "from": [str(path), "by hand"]},
        {"author": "discord:4", "from": ["by hand"]},
        {"author": "twitter:2", "from": [str(path)]},
    ]


async def test_what_is_no_account_is_refused(client: redis.asyncio.Redis) -> None:
    assert "'@name' is no account" in await refusal("add", "1", "@name")
    assert "reddit:1 is not of --platform twitter" in await refusal("remove", "reddit:1", "--platform", "twitter")
    assert await BotStore(client).count() == 0


async def test_without_a_redis_that_answers_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["list"], ["add", "1"], ["remove", "1"]):
        assert "storage.redis.url is not configured" in await refusal(*arguments)
    monkeypatch.setenv("SENTIMESH__STORAGE__REDIS__URL", "redis://:geheim@127.0.0.1:9")
    assert "check the server of storage.redis.url" in await refusal("list")
    monkeypatch.setenv("SENTIMESH__STORAGE__REDIS__URL", "geheim")
    message = await refusal("list")
    assert "storage.redis.url is no URL" in message
    assert "geheim" not in message


def test_the_platforms_are_those_there_are() -> None:
    assert tuple(Platform) == PLATFORMS
