"""``sentimesh doctor``: what is installed, reachable, healthy."""

from __future__ import annotations

import asyncio
import platform
import socket
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import asyncpg
import grpc
import nats
import redis.asyncio
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from scorer_svc.model_files import find_model
from sentimesh.connections import STAGES
from sentimesh.embedded import nats_binary, postgres_folder, valkey_binary
from sentimesh.errors import SentimeshError
from sentimesh.model_store import ModelStore
from sentimesh.native import simhash64
from sentimesh.settings import Settings, load_settings

CHECK_SECONDS = 3.0


class DoctorError(SentimeshError):
    """Something that is needed is missing or does not answer."""


Finding = tuple[str, bool | None, str]


def doctor(config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None) -> None:
    """Show what is installed, which configured servers answer, and which stages serve."""
    settings = load_settings(config)
    findings = [*_installed(settings), *asyncio.run(reachable(settings))]
    table = Table()
    for title in ("what", "", "finding"):
        table.add_column(title, overflow="fold")
    for what, fine, text in findings:
        table.add_row(what, {True: "ok", False: "MISSING", None: "-"}[fine], text)
    Console().print(table)
    missing = [what for what, fine, _ in findings if fine is False]
    if missing:
        raise DoctorError(f"{', '.join(missing)}: see the table above; `make setup` installs what belongs here")


def _installed(settings: Settings) -> list[Finding]:
    packages = ("sentimesh", "grpcio", "nats-py", "onnxruntime")
    findings: list[Finding] = [
        ("Python", True, platform.python_version()),
        *((name, True, metadata.version(name)) for name in packages),
        ("native module", len(simhash64(["to the moon"])) == 1, "loads and answers"),
    ]
    servers: list[tuple[str, SecretStr | None, Callable[[], Path]]] = [
        ("nats-server", settings.nats.url, nats_binary),
        ("Valkey", settings.storage.redis.url, valkey_binary),
        ("PostgreSQL", settings.storage.postgresql.dsn, lambda: postgres_folder() / "bin" / "postgres"),
    ]
    for name, configured, find in servers:
        try:
            findings.append((f"embedded {name}", True, _version(find())))
        except SentimeshError as error:
            findings.append((f"embedded {name}", None if configured else False, str(error)))
    store = ModelStore.configured(settings)
    for name in dict.fromkeys((store.primary(settings.model.primary), settings.model.fallback)):
        try:
            found = "built in" if name == "vader" else str(find_model(store.source(name), store.folder).folder)
            findings.append((f"model {name}", True, found))
        except SentimeshError as error:
            findings.append((f"model {name}", False, str(error)))
    return findings


def _version(program: Path) -> str:
    """Return what a server's program says of itself, and where it is."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program of our own wheels
            [program, "--version"], capture_output=True, text=True, timeout=10 * CHECK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DoctorError(f"{program} does not run ({type(error).__name__}): `make setup` installs it again") from error
    return f"{answer.stdout.strip()} ({program})"


async def reachable(settings: Settings) -> list[Finding]:
    """Ask the configured servers and the stages whether they answer; nothing on them is changed."""
    findings: list[Finding] = []

    async def quiet(_error: Exception) -> None:
        """Leave it to the exception: the client's own handler would log."""

    async def broker(url: SecretStr) -> None:
        client = await nats.connect(url.get_secret_value(), allow_reconnect=False, error_cb=quiet)
        try:
            await client.jetstream().account_info()
        finally:
            await client.close()

    async def cache(url: SecretStr) -> None:
        async with redis.asyncio.Redis.from_url(url.get_secret_value()) as client:
            await client.ping()

    async def database(dsn: SecretStr) -> None:
        connection = await asyncpg.connect(dsn.get_secret_value())
        await connection.close()

    async def series(_url: SecretStr) -> None:
        from sentimesh.storage.influx import InfluxStore  # a large library, for those who use it

        if store := InfluxStore.configured(settings.storage.influxdb):
            try:
                await store.ping()
            finally:
                await store.close()

    embedded = "an embedded server is started"
    for key, value, ask, otherwise in (
        ("nats.url", settings.nats.url, broker, embedded),
        ("storage.redis.url", settings.storage.redis.url, cache, embedded),
        ("storage.postgresql.dsn", settings.storage.postgresql.dsn, database, embedded),
        ("storage.influxdb.url", settings.storage.influxdb.url, series, "InfluxDB is not used"),
    ):
        if value is None:
            findings.append((key, None, f"not configured: {otherwise}"))
            continue
        try:
            await asyncio.wait_for(ask(value), CHECK_SECONDS)
            findings.append((key, True, "answers"))
        except SentimeshError as error:
            findings.append((key, False, str(error)))
        except Exception as error:
            # Whatever the client library raises; its text may quote the URL.
            findings.append((key, False, f"does not answer ({type(error).__name__}): start it or correct the key"))
    for stage in STAGES:
        port = getattr(settings.server, f"{stage}_port")
        findings.append((f"stage {stage}", None, await _health(settings.server.host, port)))
    return findings


async def _health(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=CHECK_SECONDS):
            pass
    except OSError:
        return f"not running on {host}:{port}"
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            return f"something on {host}:{port} that answers {error.code().name}"
    return f"{health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)} on {host}:{port}"
