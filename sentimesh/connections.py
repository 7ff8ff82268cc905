"""The clients that stages share: of configured servers or of embedded ones, and whether each is well."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import asyncpg
import redis.asyncio
from pydantic import SecretStr

from sentimesh.bus import Bus
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import SentimeshError
from sentimesh.settings import Settings
from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import open_pool

if TYPE_CHECKING:
    from sentimesh.storage.influx import InfluxStore

STAGES = ("ingest", "filter", "scorer", "aggregator", "gateway")
# What a stage cannot do its work without.
NEEDS = {
    "ingest": ("nats", "redis"),
    "filter": ("nats", "redis"),
    "scorer": ("nats",),
    "aggregator": ("nats", "redis", "postgresql"),
    "gateway": ("nats", "redis", "postgresql"),
}
# Stages that write to the time series, where there are any.
WRITE_SERIES = frozenset({"scorer", "aggregator"})
URL_KEYS = {"nats": "nats.url", "redis": "storage.redis.url", "postgresql": "storage.postgresql.dsn"}


class StackError(SentimeshError):
    """The stages cannot be put together as configured."""


class Connections:
    """Clients of the servers that some stages need; those without a URL in the settings are started.

    Use as an async context manager: leaving it closes the clients and stops the servers. ``influx`` is None where no
    InfluxDB is configured or no stage writes to it.
    """

    bus: Bus
    influx: InfluxStore | None = None

    def __init__(self, settings: Settings, stages: Sequence[str], *, data_dir: Path, allow_embedded: bool) -> None:
        """Prepare; nothing is opened before ``async with``. ``data_dir``: where embedded servers keep their data.

        Raises StackError for a stage that there is not.
        """
        if unknown := [stage for stage in stages if stage not in NEEDS]:
            raise StackError(f"there is no stage {', '.join(unknown)}: the stages are {', '.join(STAGES)}")
        self._settings = settings
        self._stages = stages
        self._data_dir = data_dir
        self._allow_embedded = allow_embedded
        self._exit = AsyncExitStack()
        self._redis: redis.asyncio.Redis | None = None
        self._pool: asyncpg.Pool[Any] | None = None
        # By server: whether somebody has met an error and waits.
        self._failing: dict[str, list[Callable[[], bool]]] = {}

    async def __aenter__(self) -> Connections:
        """Open all of them.

        Raises StackError where a server is missing, and what the clients raise for one that does not answer.
        """
        try:
            await self._open()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.__aexit__(kind, value, trace)

    @property
    def redis(self) -> redis.asyncio.Redis:
        """The client of Redis. Raises StackError where none of the stages needs it."""
        if self._redis is None:
            raise StackError("Redis is not connected: NEEDS leaves it out for this stage")
        return self._redis

    @property
    def database(self) -> asyncpg.Pool[Any]:
        """The pool of PostgreSQL. Raises StackError where none of the stages needs it."""
        if self._pool is None:
            raise StackError("PostgreSQL is not connected: NEEDS leaves it out for this stage")
        return self._pool

    async def any_database(self) -> asyncpg.Pool[Any] | None:
        """Return the pool of PostgreSQL, opened now if none of the stages needs it; None where it is not configured."""
        dsn = self._settings.storage.postgresql.dsn
        if self._pool is None and dsn is not None:
            await self._open_pool(dsn)
        return self._pool

    def cache(self) -> SentimentCache:
        """Return the scores in Redis. Raises StackError where none of the stages needs it."""
        options = self._settings.storage.redis
        return SentimentCache(
            self.redis,
            key_prefix=options.key_prefix,
            score_ttl_seconds=options.score_ttl_seconds,
            baseline_ttl_seconds=options.volume_baseline_ttl_seconds,
            cooldown_seconds=self._settings.viral_detection.cooldown_seconds,
        )

    def watch(self, server: str, failing: Callable[[], bool]) -> None:
        """Take a server for unwell whenever this says so: somebody has met an error and waits."""
        self._failing.setdefault(server, []).append(failing)

    def checks(self, stage: str) -> dict[str, Callable[[], Coroutine[Any, Any, bool]]]:
        """Return a check for each server that the stage needs: it answers, and the last write to it worked."""

        async def bus() -> bool:
            return self.bus.connected

        async def cache() -> bool:
            return bool(await self.redis.ping()) and not self._is_failing("redis")

        async def database() -> bool:
            alive = await self.database.fetchval("SELECT 1", timeout=5)
            return alive == 1 and not self._is_failing("postgresql")

        async def time_series() -> bool:
            if self.influx is not None:
                await self.influx.ping()
            return not self._is_failing("influxdb")

        known = {"nats": bus, "redis": cache, "postgresql": database}
        checks: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {server: known[server] for server in NEEDS[stage]}
        if self.influx is not None and stage in WRITE_SERIES:
            checks["influxdb"] = time_series
        return checks

    def _is_failing(self, server: str) -> bool:
        return any(failing() for failing in self._failing.get(server, ()))

    async def _open(self) -> None:
        settings = self._settings
        urls = await self._urls()
        self.bus = await self._exit.enter_async_context(
            Bus(
                urls["nats"],
                max_inflight=settings.nats.max_inflight,
                retention_hours=settings.kafka.retention_hours,
                partitions=settings.kafka.partitions,
            )
        )
        if "redis" in urls:
            self._redis = redis.asyncio.Redis.from_url(
                urls["redis"].get_secret_value(), socket_timeout=5, socket_connect_timeout=5
            )
            self._exit.push_async_callback(self._redis.aclose)
        if "postgresql" in urls:
            await self._open_pool(urls["postgresql"])
        if settings.storage.influxdb.url is not None and WRITE_SERIES.intersection(self._stages):
            from sentimesh.storage.influx import InfluxStore  # a large library, for those who use it

            self.influx = InfluxStore.configured(settings.storage.influxdb)
        if self.influx is not None:
            self._exit.push_async_callback(self.influx.close)

    async def _open_pool(self, dsn: SecretStr) -> None:
        self._pool = await open_pool(dsn)
        self._exit.push_async_callback(self._pool.close)

    async def _urls(self) -> dict[str, SecretStr]:
        """Return the URL of each server that the stages need; those without one are started."""
        configured = self._settings.server_urls()
        needed = {server for stage in self._stages for server in NEEDS[stage]}
        urls = {server: url for server in needed if (url := configured[server]) is not None}
        missing = [server for server in URL_KEYS if server in needed - set(urls)]
        if not missing:
            return urls
        if not self._allow_embedded:
            message = (
                f"{' and '.join(URL_KEYS[server] for server in missing)} not configured: a stage of its own needs "
                "servers it shares with the others; set the key in the configuration, or use `sentimesh up` for "
                "everything in one process"
            )
            raise StackError(message)
        embedded = await self._exit.enter_async_context(
            EmbeddedServers(
                self._data_dir,
                nats="nats" in missing,
                redis="redis" in missing,
                postgres="postgresql" in missing,
                sync_always=self._settings.nats.sync_always,
            )
        )
        started = {"nats": embedded.nats_url, "redis": embedded.redis_url, "postgresql": embedded.postgres_dsn}
        return urls | {server: SecretStr(started[server]) for server in missing}
