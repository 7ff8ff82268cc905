"""Composition: settings in, running stages out. The only place where stages, clients and servers meet."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import asyncpg
import nats.errors
import redis.asyncio
import stamina
import structlog
from google.protobuf.message import Message
from nats.js.errors import NotFoundError
from pydantic import SecretStr

from aggregator_svc.service import AggregatorStage
from sentimesh import build, known_bots, learning
from sentimesh.bus import AGGREGATES, FILTERED, NORMALIZED, RAW, SCORED, Bus, Topic
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import SentimeshError, StorageUnavailableError
from sentimesh.host import Observer, StageWorker, WorkerConfig
from sentimesh.pb import gateway_pb2_grpc
from sentimesh.pb.pipeline_pb2 import FilteredPost, RawPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.pump import Pump
from sentimesh.replicas import Replica, take_over
from sentimesh.resume import finished_mentions
from sentimesh.rpc import PACKAGE, RpcServer, add_stage
from sentimesh.settings import Settings
from sentimesh.source import Source
from sentimesh.stage import Outcome, Stage
from sentimesh.storage.authors import AuthorStore
from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore, migrate, open_pool
from sentimesh.storage.retention import purge_expired
from sentimesh.storage.writers import LiveSink
from sentimesh.telemetry import Metrics, Tracing

if TYPE_CHECKING:
    from sentimesh.storage.influx import InfluxStore

log = structlog.get_logger(__name__)

STAGES = ("ingest", "filter", "scorer", "aggregator", "gateway")
# What a stage cannot do its work without.
NEEDS = {
    "ingest": ("nats", "redis"),
    "filter": ("nats", "redis"),
    "scorer": ("nats",),
    "aggregator": ("nats", "redis", "postgresql"),
    "gateway": ("nats", "redis", "postgresql"),
}
# What a stage waits for when it waits; a writer's name starts with its server's.
SERVER_OF = {"ingest": "redis", "filter": "redis", "aggregator": "redis"}
URL_KEYS = {"nats": "nats.url", "redis": "storage.redis.url", "postgresql": "storage.postgresql.dsn"}
DRAIN_SECONDS = 20.0
LAG_SECONDS = 5.0
# A database that starts together with us is waited for.
START_SECONDS = 60.0
PURGE_SECONDS = 3600.0
# What is read back from before the first window that is closed again: the hour that its spikes are measured against,
# and posts that came in before their own time.
RESTORED_BEFORE_MS = 2 * build.HOUR_MS


class StackError(SentimeshError):
    """The stages cannot be put together as configured."""


class Stack:
    """Some or all stages in this process, on configured servers or on embedded ones.

    Use as an async context manager: inside it the stages run; leaving it drains them. An error that stops a
    stage for good ends the block with an exception group.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stages: Sequence[str] = STAGES,
        data_dir: Path | None = None,
        allow_embedded: bool = True,
        observers: Sequence[Observer] = (),
        on_visible: Callable[[Sequence[int]], None] = lambda _latencies: None,
        on_live: Callable[[Sequence[SentimentAggregate]], None] = lambda _aggregates: None,
        free_ports: bool = False,
    ) -> None:
        """Prepare; nothing starts before ``async with``.

        ``stages``: names out of :data:`STAGES`. ``data_dir``: where embedded servers keep their data.
        ``on_visible`` gets latencies in milliseconds as scores become readable in Redis, ``on_live`` the live
        aggregates. ``free_ports``: listen on any free port instead of the configured ones.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.addresses: dict[str, str] = {}
        self.pumps: list[Pump] = []
        self._names = tuple(stages)
        self._data_dir = data_dir or settings.data_dir
        self._allow_embedded = allow_embedded
        self._observers = observers
        self._on_visible = on_visible
        self._on_live = on_live
        self._free_ports = free_ports
        self._exit = AsyncExitStack()
        self._stop = asyncio.Event()
        self._stop_watching = asyncio.Event()
        self._workers: list[StageWorker] = []
        self._worker_tasks: list[asyncio.Task[None]] = []
        self._servers: list[RpcServer] = []
        self._aggregator: AggregatorStage | None = None
        self._sink: LiveSink | None = None
        # By server: whether somebody has met an error and waits.
        self._failing: dict[str, list[Callable[[], bool]]] = {}
        self._group: asyncio.TaskGroup
        self._tracing: Tracing
        self._bus: Bus
        self._redis: redis.asyncio.Redis | None = None
        self._pool: asyncpg.Pool[Any] | None = None
        self._influx: InfluxStore | None = None

    async def __aenter__(self) -> Stack:
        try:
            await self._open()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._worker_tasks:
            await asyncio.wait(self._worker_tasks, timeout=DRAIN_SECONDS)
        if self._sink is not None:
            try:
                await asyncio.wait_for(self._sink.drain(), DRAIN_SECONDS)
            except TimeoutError:
                log.warning("stack.undrained", seconds=DRAIN_SECONDS)
        self._stop_watching.set()
        for task in self._worker_tasks:
            task.cancel()
        await self._exit.__aexit__(kind, value, trace)

    async def _open(self) -> None:
        settings = self.settings
        self._tracing = Tracing("sentimesh", settings.telemetry.otlp_endpoint)
        self._exit.callback(self._tracing.close)
        urls = await self._servers_urls()
        self._bus = await self._exit.enter_async_context(
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
            self._pool = await open_pool(urls["postgresql"])
            self._exit.push_async_callback(self._pool.close)
        if settings.storage.influxdb.url is not None and {"scorer", "aggregator"} & set(self._names):
            from sentimesh.storage.influx import InfluxStore  # a large library, for those who use it

            self._influx = InfluxStore.configured(settings.storage.influxdb)
        self._group = await self._exit.enter_async_context(asyncio.TaskGroup())
        if self._influx is not None:
            self._exit.push_async_callback(self._influx.close)
            making = self._group.create_task(self._make_buckets(self._influx))
            self._exit.callback(making.cancel)
        for name in self._names:
            await self._start(name)
        if "filter" in self._names:
            # After an aggregator beside it, which makes the table of what was learned.
            await self._know_authors()
        self._group.create_task(self._watch_lag())

    async def _servers_urls(self) -> dict[str, SecretStr]:
        """Return the URL of each server that the stages need; those without one are started."""
        configured = self.settings.server_urls()
        needed = {server for name in self._names for server in NEEDS[name]}
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
                sync_always=self.settings.nats.sync_always,
            )
        )
        started = {"nats": embedded.nats_url, "redis": embedded.redis_url, "postgresql": embedded.postgres_dsn}
        return urls | {server: SecretStr(started[server]) for server in missing}

    async def _start(self, name: str) -> None:
        server = RpcServer(self.settings.server.host, 0 if self._free_ports else self._configured_port(name))
        degraded: dict[str, Callable[[], bool]] = {}
        match name:
            case "ingest":
                stage: Stage[Any] = build.ingest(self.settings, self._cache_client())
                await self._work(name, stage, RAW, RawPost)
            case "filter":
                stage = build.filtering(self.settings, self.metrics, self._cache_client())
                await self._work(name, stage, NORMALIZED, SocialPost)
            case "scorer":
                stage = scorer = build.scorer(self.settings, self.metrics)
                self._exit.push_async_callback(scorer.close)
                await scorer.start()
                degraded["model"] = lambda: scorer.models.degraded
                model = self.settings.model
                batches = WorkerConfig(batch_size=model.batch_size, linger_seconds=model.linger_ms / 1000)
                await self._work(name, stage, FILTERED, FilteredPost, batches=batches)
                if self._influx is not None:
                    await self._work(
                        "influxdb-posts", build.posts_writer(self._influx, self.metrics), SCORED, ScoredPost
                    )
            case "aggregator":
                stage = await self._start_aggregator()
            case "gateway":
                gateway = build.gateway(
                    self.settings, self.metrics, self._bus, self._cache(), AggregateStore(self._database())
                )
                gateway_pb2_grpc.add_SentimentGatewayServiceServicer_to_server(gateway, server.server)
            case _:
                raise StackError(f"there is no stage {name}: the stages are {', '.join(STAGES)}")
        service = f"{PACKAGE}.SentimentGatewayService" if name == "gateway" else add_stage(server.server, name, stage)
        await server.start([service])
        self.addresses[name] = server.address
        self._servers.append(server)
        self._exit.push_async_callback(server.stop)
        self._group.create_task(
            server.watch(self._checks(name), self._stop_watching, self.metrics.dependency, degraded)
        )

    async def _work(
        self,
        name: str,
        stage: Stage[Any],
        topic: Topic,
        input_type: type[Message],
        *,
        batches: WorkerConfig | None = None,
        durable: str | None = None,
        subjects: Sequence[str] = (),
        unpublished: Sequence[Outcome] = (),
    ) -> None:
        """Start the worker that feeds a stage from its stream, once what an earlier one left unpublished is stored."""
        options = self.settings.nats
        worker = StageWorker(
            name,
            stage,
            self._bus,
            topic,
            input_type,
            metrics=self.metrics,
            tracing=self._tracing,
            # A writer ends nothing: the books are of the stages.
            observers=self._observers if name in STAGES else (),
            config=dataclasses.replace(
                batches or WorkerConfig(batch_size=options.batch_size),
                ack_wait_seconds=options.ack_wait_seconds,
                max_deliver=options.max_deliver,
            ),
            durable=durable,
            subjects=subjects,
        )
        server = SERVER_OF.get(name, name.split("-")[0])
        self._failing.setdefault(server, []).append(lambda: worker.waiting)
        await worker.publish_again(unpublished)
        self._workers.append(worker)
        self._worker_tasks.append(self._group.create_task(worker.run(self._stop), name=name))

    def _configured_port(self, name: str) -> int:
        port: int = getattr(self.settings.server, f"{name}_port")
        return port

    def _cache_client(self) -> redis.asyncio.Redis:
        if self._redis is None:
            raise StackError("Redis is not connected: NEEDS leaves it out for this stage")
        return self._redis

    def _database(self) -> asyncpg.Pool[Any]:
        if self._pool is None:
            raise StackError("PostgreSQL is not connected: NEEDS leaves it out for this stage")
        return self._pool

    def _cache(self) -> SentimentCache:
        options = self.settings.storage.redis
        return SentimentCache(
            self._cache_client(),
            key_prefix=options.key_prefix,
            score_ttl_seconds=options.score_ttl_seconds,
            baseline_ttl_seconds=options.volume_baseline_ttl_seconds,
            cooldown_seconds=self.settings.viral_detection.cooldown_seconds,
        )

    async def _know_authors(self) -> None:
        """Refresh the known bots from now on; where PostgreSQL is configured or ours, learn who else is one."""
        pool, dsn = self._pool, self.settings.storage.postgresql.dsn
        if pool is None and dsn is not None:
            pool = await open_pool(dsn)
            self._exit.push_async_callback(pool.close)
        refresher = known_bots.configured(self.settings, self.metrics, self._cache_client(), pool)
        refreshing = self._group.create_task(refresher.run(self._stop), name="known bots")
        self._exit.callback(refreshing.cancel)
        if pool is not None and self.settings.spam_filter.author_history.enabled:
            store, client = AuthorStore(pool), self._cache_client()
            learner = learning.configured(
                self.settings, self.metrics, self._bus, store, client, refresher.refresh_learned
            )
            learns = self._group.create_task(learner.run(self._stop), name="authors")
            self._exit.callback(learns.cancel)

    def _since(self, since_ms: int) -> int | None:
        """Return from when the log is read back; posts of a replay on the event clock come at any speed: all of it."""
        return None if self.settings.aggregation.clock == "event" else since_ms

    async def _start_aggregator(self) -> AggregatorStage:
        """Start the aggregator with its writers, where the last one stopped."""
        pool = self._database()
        async for attempt in stamina.retry_context(on=StorageUnavailableError, attempts=None, timeout=START_SECONDS):
            with attempt:
                await migrate(pool)
        sink = self._sink = build.live_sink(
            self.metrics, self._bus, self._cache(), on_live=self._on_live, on_visible=self._on_visible
        )
        self._failing.setdefault("redis", []).append(lambda: sink.failing)
        writing = self._group.create_task(sink.run(), name="redis")
        self._exit.callback(writing.cancel)
        settings = self.settings
        options = build.aggregator_options(settings)
        replica = Replica(settings.aggregation.replica_index, settings.aggregation.replica_count)
        partitions = settings.kafka.partitions
        floors = await take_over(self._bus, SCORED, replica, partitions)
        resuming = any(floors.values())
        held_ms = build.now_ms() - options.span_ms
        since_ms = self._since(held_ms - RESTORED_BEFORE_MS)
        # The first window that is held in full.
        start_ms = -(-held_ms // options.window_ms) * options.window_ms if resuming and since_ms else None
        # A log that begins later does not tell what was before.
        begun_ms = await self._bus.begun_ms(SCORED)
        symbols = replica.symbols(settings.symbols, partitions)
        stage = self._aggregator = build.aggregator(
            settings,
            options,
            symbols,
            sink,
            start_ms=start_ms,
            history_start_ms=since_ms if resuming and since_ms and begun_ms and begun_ms < since_ms else None,
            behind=await self._bus.lag(SCORED, replica.durable),
        )
        if since_ms is not None:
            await self._load_baseline(stage, symbols, start_ms or build.now_ms())
        outcomes: Sequence[Outcome] = ()
        if resuming:
            outcomes = await stage.restore(finished_mentions(self._bus, replica, floors, since_ms, partitions))
        if replica.index == 0:
            # One writer a back end: two could write the revisions of a window in the wrong order.
            for name, topic, input_type, writer in build.writers(settings, self.metrics, pool, self._influx):
                await self._work(name, writer, topic, input_type)
        await self._work(
            "aggregator",
            stage,
            SCORED,
            ScoredPost,
            durable=replica.durable,
            subjects=replica.subjects(SCORED, partitions),
            unpublished=outcomes,
        )
        self._group.create_task(self._purge(pool))
        return stage

    async def _load_baseline(self, stage: AggregatorStage, symbols: Sequence[str], before_ms: int) -> None:
        """Load the windows of the days before: from InfluxDB, from PostgreSQL where it is away or behind."""
        first_ms = before_ms - self.settings.aggregation.volume_baseline_days * build.DAY_MS
        counts: Sequence[tuple[str, int, int]] | None = None
        if self._influx is not None:
            try:
                if not await self._bus.lag(AGGREGATES, "influxdb-windows"):
                    counts = await self._influx.window_counts(symbols, first_ms, before_ms)
            except (StorageUnavailableError, NotFoundError) as error:
                log.warning("baseline.not_from_influxdb", error=str(error))
        if counts is None:
            counts = await AggregateStore(self._database()).window_counts(symbols, first_ms, before_ms)
        for symbol, end_ms, count in counts:
            stage.baseline.load(symbol, end_ms, count)

    async def _make_buckets(self, store: InfluxStore) -> None:
        """Make what is written to, as soon as the server is there."""
        async for attempt in stamina.retry_context(on=StorageUnavailableError, attempts=None, timeout=None):
            with attempt:
                try:
                    await store.ensure_buckets()
                except StorageUnavailableError as error:
                    self.metrics.writer_errors.labels("influxdb").inc()
                    log.warning("writer.waiting", backend="influxdb", error=str(error))
                    raise

    async def _purge(self, pool: asyncpg.Pool[Any]) -> None:
        """Remove what may not be kept any longer, every hour."""
        while not self._stop.is_set():
            try:
                await purge_expired(pool, build.now_ms())
            except SentimeshError as error:
                self.metrics.writer_errors.labels("retention").inc()
                log.warning("retention.waiting", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PURGE_SECONDS)

    def _checks(self, name: str) -> dict[str, Callable[[], Coroutine[Any, Any, bool]]]:
        """Return a check for each server that the stage needs: it answers, and the last write to it worked."""

        async def bus() -> bool:
            return self._bus.connected

        async def cache() -> bool:
            return bool(await self._cache_client().ping()) and not self._is_failing("redis")

        async def database() -> bool:
            alive = await self._database().fetchval("SELECT 1", timeout=5)
            return alive == 1 and not self._is_failing("postgresql")

        async def time_series() -> bool:
            if self._influx is not None:
                await self._influx.ping()
            return not self._is_failing("influxdb")

        known = {"nats": bus, "redis": cache, "postgresql": database}
        checks: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {server: known[server] for server in NEEDS[name]}
        if self._influx is not None and name in ("scorer", "aggregator"):
            checks["influxdb"] = time_series
        return checks

    def _is_failing(self, server: str) -> bool:
        return any(failing() for failing in self._failing.get(server, ()))

    def run_source(self, source: Source) -> asyncio.Task[None]:
        """Start pumping a source; the task ends with it."""
        pump = Pump(source, self._bus, self._tracing)
        self.pumps.append(pump)
        return self._group.create_task(pump.run(self._stop))

    async def drained(self) -> None:
        """Wait until every stage has finished all there is in its stream."""
        for worker in self._workers:
            while await self._has_work(worker):  # noqa: ASYNC110 (the broker is asked)
                await asyncio.sleep(0.1)

    async def _has_work(self, worker: StageWorker) -> bool:
        try:
            return await self._bus.lag(worker.topic, worker.durable) > 0
        except nats.errors.Error:
            # The worker has not made its consumer yet, or the broker is away: not known before they are there.
            return True

    async def finish(self) -> None:
        """End a replay: close the windows that hold the last posts and wait until everything is written."""
        await self.drained()
        if self._aggregator is not None and self._sink is not None:
            worker = next(w for w in self._workers if w.name == "aggregator")
            await worker.publish(await self._aggregator.finish())
            await self.drained()
            await self._sink.drain()

    async def windows_written(self) -> int:
        """Return how many closed windows PostgreSQL holds."""
        return await AggregateStore(self._database()).count_windows()

    async def _watch_lag(self) -> None:
        while not self._stop.is_set():
            for worker in self._workers:
                try:
                    lag = await self._bus.lag(worker.topic, worker.durable)
                except Exception as error:
                    # The lag is only a gauge: the next round asks again.
                    log.debug("lag.unknown", stage=worker.name, error=type(error).__name__)
                    continue
                self.metrics.lag.labels(worker.topic.stream, worker.durable).set(lag)
            try:
                await asyncio.wait_for(self._stop.wait(), LAG_SECONDS)
            except TimeoutError:
                continue
