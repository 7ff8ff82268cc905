"""Embedded servers: started, used, stopped, and cleaned up after a killed run."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
import redis.asyncio

from sentimesh.embedded import EmbeddedServerError, EmbeddedServers

HOLDER = """
import asyncio, sys
from pathlib import Path
from sentimesh.embedded import EmbeddedServers

async def hold():
    async with EmbeddedServers(Path(sys.argv[1]), durable=False) as servers:
        print(*servers.process_ids.values(), flush=True)
        await asyncio.sleep(3600)

asyncio.run(hold())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # PostgreSQL, when the tests run as root, is another user and has to get here.
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        if parent.owner() == tmp_path.owner() and parent != Path("/"):
            parent.chmod(0o755)
    return tmp_path / "data"


async def test_the_three_servers_answer_and_keep_their_data(folder: Path) -> None:
    async with EmbeddedServers(folder, durable=False) as servers:
        client = await nats.connect(servers.nats_url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"1")
        await client.close()
        async with redis.asyncio.Redis.from_url(servers.redis_url) as cache:
            await cache.set("kept", "1")
        connection = await asyncpg.connect(servers.postgres_dsn)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        await connection.close()
        processes = [psutil.Process(pid) for pid in servers.process_ids.values()]
        listening = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
    assert not any(process.is_running() for process in processes)

    async with EmbeddedServers(folder, durable=False) as servers:
        client = await nats.connect(servers.nats_url)
        assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
        await client.close()
        async with redis.asyncio.Redis.from_url(servers.redis_url) as cache:
            assert await cache.get("kept") == b"1"
        connection = await asyncpg.connect(servers.postgres_dsn)
        assert await connection.fetchval("SELECT one FROM kept") == 1
        await connection.close()


async def test_only_what_is_wanted_starts(folder: Path) -> None:
    async with EmbeddedServers(folder, nats=False, postgres=False) as servers:
        assert list(servers.process_ids) == ["valkey"]
        assert (servers.nats_url, servers.postgres_dsn) == ("", "")


async def test_a_killed_run_leaves_nothing_and_its_folder_starts_again(folder: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    pids = [int(pid) for pid in (await holder.stdout.readline()).split()]
    assert len(pids) == 3
    servers_before = [psutil.Process(pid) for pid in pids]
    holder.send_signal(signal.SIGKILL)
    await holder.wait()
    async with EmbeddedServers(folder, durable=False) as servers:
        _, alive = psutil.wait_procs(servers_before, timeout=60)
        assert alive == []
        assert len(servers.process_ids) == 3


async def test_a_stranger_with_the_same_process_id_is_left_alone(folder: Path) -> None:
    folder.mkdir()  # noqa: ASYNC240
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        (folder / "valkey.pid").write_text(f"{stranger.pid} 1.5")
        async with EmbeddedServers(folder, nats=False, postgres=False):
            assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_server_that_ends_at_once_says_why(folder: Path) -> None:
    (folder / "nats").mkdir(parents=True)
    (folder / "nats" / "jetstream").write_text("a file where the server wants a folder")
    with pytest.raises(EmbeddedServerError, match=r"embedded nats ended with status 1: .*its log is .*nats\.log"):
        async with EmbeddedServers(folder, redis=False, postgres=False):
            pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="set data_dir to another folder"):
        async with EmbeddedServers(tmp_path / "file" / "data"):
            pass
