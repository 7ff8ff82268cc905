"""Composition: settings in, running stages out. The only place where stages, clients and servers meet."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncpg
import redis.asyncio
import structlog
from pydantic import SecretStr

from aggregator_svc.service import AggregatorStage
from gateway_svc.service import SentimentGateway
from sentimesh import build
from sentimesh.bus import FILTERED, NORMALIZED, RAW, SCORED, Bus, Topic
from sentimesh.embedded import EmbeddedServers
from sentimesh.errors import SentimeshError
from sentimesh.host import Observer, StageWorker, WorkerConfig
from sentimesh.pb import gateway_pb2_grpc
from sentimesh.pb.pipeline_pb2 import FilteredPost, RawPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.pump import Pump
from sentimesh.rpc import PACKAGE, RpcServer, add_stage
from sentimesh.settings import Settings
from sentimesh.source import Source
from sentimesh.stage import Stage
from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore, connect
from sentimesh.storage.writers import QueuedSink
from sentimesh.telemetry import Metrics, Tracing

log = structlog.get_logger(__name__)

STAGES = ("ingest", "filter", "scorer", "aggregator", "gateway")
DRAIN_SECONDS = 20.0
LAG_SECONDS = 5.0
DAY_MS = 86_400_000


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
        self._sink: QueuedSink | None = None
        self._group: asyncio.TaskGroup
        self._tracing: Tracing
        self._bus: Bus
        self._redis: redis.asyncio.Redis
        self._pool: asyncpg.Pool[Any]

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
        nats_url, redis_url, dsn = await self._servers_urls()
        self._bus = await self._exit.enter_async_context(
            Bus(nats_url, max_inflight=settings.nats.max_inflight, retention_hours=settings.kafka.retention_hours)
        )
        self._redis = redis.asyncio.Redis.from_url(
            redis_url.get_secret_value(), socket_timeout=5, socket_connect_timeout=5
        )
        self._exit.push_async_callback(self._redis.aclose)
        self._pool = await connect(dsn)
        self._exit.push_async_callback(self._pool.close)
        self._group = await self._exit.enter_async_context(asyncio.TaskGroup())
        for name in self._names:
            await self._start(name)
        self._group.create_task(self._watch_lag())

    async def _servers_urls(self) -> tuple[SecretStr, SecretStr, SecretStr]:
        settings = self.settings
        configured = (settings.nats.url, settings.storage.redis.url, settings.storage.postgresql.dsn)
        missing = [
            key
            for key, value in zip(("nats.url", "storage.redis.url", "storage.postgresql.dsn"), configured, strict=True)
            if value is None
        ]
        if missing and not self._allow_embedded:
            message = (
                f"{' and '.join(missing)} not configured: a stage of its own needs servers it shares with the others; "
                "set the key in the configuration, or use `sentimesh up` for everything in one process"
            )
            raise StackError(message)
        nats_url, redis_url, dsn = configured
        if missing:
            embedded = await self._exit.enter_async_context(
                EmbeddedServers(
                    self._data_dir,
                    nats=nats_url is None,
                    redis=redis_url is None,
                    postgres=dsn is None,
                    sync_always=settings.nats.sync_always,
                )
            )
            nats_url = nats_url or SecretStr(embedded.nats_url)
            redis_url = redis_url or SecretStr(embedded.redis_url)
            dsn = dsn or SecretStr(embedded.postgres_dsn)
        if nats_url is None or redis_url is None or dsn is None:
            raise StackError("an embedded server did not say where it listens: run `sentimesh doctor`")
        return nats_url, redis_url, dsn

    async def _start(self, name: str) -> None:
        server = RpcServer(self.settings.server.host, 0 if self._free_ports else self._configured_port(name))
        if name == "gateway":
            gateway_pb2_grpc.add_SentimentGatewayServiceServicer_to_server(self._gateway(), server.server)
            service = f"{PACKAGE}.SentimentGatewayService"
        else:
            stage, topic, input_type, batch_size = await self._stage(name)
            service = add_stage(server.server, name, stage)
            worker = StageWorker(
                name,
                stage,
                self._bus,
                topic,
                input_type,
                metrics=self.metrics,
                tracing=self._tracing,
                observers=self._observers,
                config=WorkerConfig(
                    batch_size=batch_size,
                    ack_wait_seconds=self.settings.nats.ack_wait_seconds,
                    max_deliver=self.settings.nats.max_deliver,
                ),
            )
            self._workers.append(worker)
            self._worker_tasks.append(self._group.create_task(worker.run(self._stop), name=name))
        await server.start([service])
        self.addresses[name] = server.address
        self._servers.append(server)
        self._exit.push_async_callback(server.stop)
        self._group.create_task(server.watch(self._checks(), self._stop_watching))

    def _configured_port(self, name: str) -> int:
        port: int = getattr(self.settings.server, f"{name}_port")
        return port

    async def _stage(self, name: str) -> tuple[Stage[Any], Topic, type[Any], int]:
        settings = self.settings
        batch_size = settings.nats.batch_size
        match name:
            case "ingest":
                return build.ingest(settings, self._redis), RAW, RawPost, batch_size
            case "filter":
                return build.filtering(settings, self._redis), NORMALIZED, SocialPost, batch_size
            case "scorer":
                return build.scorer(settings, self.metrics), FILTERED, FilteredPost, settings.model.batch_size
            case "aggregator":
                return await self._aggregate(), SCORED, ScoredPost, batch_size
        raise StackError(f"there is no stage {name}: the stages are {', '.join(STAGES)}")

    def _gateway(self) -> SentimentGateway:
        return build.gateway(self.settings, self.metrics, self._bus, self._cache(), AggregateStore(self._pool))

    def _cache(self) -> SentimentCache:
        options = self.settings.storage.redis
        return SentimentCache(
            self._redis,
            key_prefix=options.key_prefix,
            score_ttl_seconds=options.score_ttl_seconds,
            baseline_ttl_seconds=options.volume_baseline_ttl_seconds,
        )

    async def _aggregate(self) -> AggregatorStage:
        """Build the aggregator with its writers, and bring it back to where the last one stopped."""
        settings = self.settings
        store = AggregateStore(self._pool)

        def on_error(backend: str, error: SentimeshError) -> None:
            self.metrics.writer_errors.labels(backend).inc()
            log.warning("writer.waiting", backend=backend, error=str(error))

        async def on_live(aggregates: Sequence[SentimentAggregate]) -> None:
            for aggregate in aggregates:
                self.metrics.aggregate(aggregate)
                await self._bus.publish_live(aggregate)
            self._on_live(aggregates)

        def on_visible(latencies_ms: Sequence[int]) -> None:
            for latency in latencies_ms:
                self.metrics.visible_latency.observe(latency)
            self._on_visible(latencies_ms)

        self._sink = QueuedSink(
            self._cache(),
            store,
            now_ms=build.now_ms,
            on_live=on_live,
            on_visible=on_visible,
            on_error=on_error,
        )
        writing = self._group.create_task(self._sink.run(), name="writers")
        self._exit.callback(writing.cancel)
        options = build.aggregator_options(settings)
        through = await self._bus.acknowledged_through(SCORED, "aggregator")
        # Posts of the first window that is held in full, counted from when they came in.
        since_ms = build.now_ms() - options.span_ms
        start_ms = -(-since_ms // options.window_ms) * options.window_ms if through else None
        stage = build.aggregator(settings, options, self._sink, start_ms)
        if start_ms is not None:
            first_ms = start_ms - settings.aggregation.volume_baseline_days * DAY_MS
            for symbol, end_ms, count in await store.window_counts(settings.symbols, first_ms, start_ms):
                stage.baseline.load(symbol, end_ms, count)
            since = dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC)
            async for messages in self._bus.read_back(SCORED, since, through):
                await stage.restore(messages)
        self._aggregator = stage
        return stage

    def _checks(self) -> dict[str, Callable[[], Awaitable[bool]]]:
        async def bus() -> bool:
            return self._bus.connected

        async def cache() -> bool:
            return bool(await self._redis.ping())

        async def database() -> bool:
            return bool(await self._pool.fetchval("SELECT 1", timeout=5))

        return {"nats": bus, "redis": cache, "postgresql": database}

    def run_source(self, source: Source) -> asyncio.Task[None]:
        """Start pumping a source; the task ends with it."""
        pump = Pump(source, self._bus, self._tracing)
        self.pumps.append(pump)
        return self._group.create_task(pump.run(self._stop))

    async def drained(self) -> None:
        """Wait until every stage has finished all there is in its stream."""
        for worker in self._workers:
            while await self._bus.lag(worker.topic, worker.durable):  # noqa: ASYNC110 (the broker is asked)
                await asyncio.sleep(0.1)

    async def finish(self) -> None:
        """End a replay: close the windows that hold the last posts and wait until everything is written."""
        await self.drained()
        if self._aggregator is not None and self._sink is not None:
            worker = next(w for w in self._workers if w.name == "aggregator")
            await worker.publish(await self._aggregator.finish())
            await self._sink.drain()

    async def windows_written(self) -> int:
        """Return how many closed windows PostgreSQL holds."""
        return await AggregateStore(self._pool).count_windows()

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
