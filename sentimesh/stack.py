"""Composition: settings in, running stages out. The only place where stages, clients and servers meet."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import asyncpg
import nats.errors
import stamina
import structlog
from google.protobuf.message import Message
from nats.js.errors import NotFoundError

from aggregator_svc.service import AggregatorStage
from sentimesh import build, known_bots, learning
from sentimesh.bus import AGGREGATES, FILTERED, NORMALIZED, RAW, SCORED, Bus, Topic
from sentimesh.connections import STAGES, Connections
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
from sentimesh.storage.postgres import AggregateStore, migrate
from sentimesh.storage.retention import purge_expired
from sentimesh.storage.writers import LiveSink
from sentimesh.telemetry import Metrics, Tracing

if TYPE_CHECKING:
    from sentimesh.storage.influx import InfluxStore

log = structlog.get_logger(__name__)

# What a stage waits for when it waits; a writer's name starts with its server's.
SERVER_OF = {"ingest": "redis", "filter": "redis", "aggregator": "redis"}
DRAIN_SECONDS = 20.0
LAG_SECONDS = 5.0
# The scorer takes so many batches' worth of posts at once, to make its batches of like length out of them: of 128 posts
# a text runs 15 % faster than alone, of 32 8 % (docs/measurements.md).
LIKE_LENGTHS_OUT_OF = 4
# A database that starts together with us is waited for.
START_SECONDS = 60.0
PURGE_SECONDS = 3600.0
# What is read back from before the first window that is closed again: the hour that its spikes are measured against,
# and posts that came in before their own time.
RESTORED_BEFORE_MS = 2 * build.HOUR_MS


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
        self._connections = Connections(
            settings, self._names, data_dir=data_dir or settings.data_dir, allow_embedded=allow_embedded
        )
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
        self._group: asyncio.TaskGroup
        self._tracing: Tracing
        self._bus: Bus

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
        connections = await self._exit.enter_async_context(self._connections)
        self._bus = connections.bus
        self._group = await self._exit.enter_async_context(asyncio.TaskGroup())
        if connections.influx is not None:
            making = self._group.create_task(self._make_buckets(connections.influx))
            self._exit.callback(making.cancel)
        for name in self._names:
            await self._start(name)
        if "filter" in self._names:
            # After an aggregator beside it, which makes the table of what was learned.
            await self._know_authors()
        self._group.create_task(self._watch_lag())

    async def _start(self, name: str) -> None:
        server = RpcServer(self.settings.server.host, 0 if self._free_ports else self._configured_port(name))
        degraded: dict[str, Callable[[], bool]] = {}
        match name:
            case "ingest":
                stage: Stage[Any] = build.ingest(self.settings, self._connections.redis)
                await self._work(name, stage, RAW, RawPost)
            case "filter":
                stage = build.filtering(self.settings, self.metrics, self._connections.redis)
                await self._work(name, stage, NORMALIZED, SocialPost)
            case "scorer":
                stage = scorer = build.scorer(self.settings, self.metrics)
                self._exit.push_async_callback(scorer.close)
                await scorer.start()
                degraded["model"] = lambda: scorer.models.degraded
                model = self.settings.model
                batches = WorkerConfig(
                    batch_size=LIKE_LENGTHS_OUT_OF * model.batch_size, linger_seconds=model.linger_ms / 1000
                )
                await self._work(name, stage, FILTERED, FilteredPost, batches=batches)
                if self._connections.influx is not None:
                    await self._work(
                        "influxdb-posts", build.posts_writer(self._connections.influx, self.metrics), SCORED, ScoredPost
                    )
            case "aggregator":
                stage = await self._start_aggregator()
            case "gateway":
                store = AggregateStore(self._connections.database)
                gateway = build.gateway(self.settings, self.metrics, self._bus, self._connections.cache(), store)
                gateway_pb2_grpc.add_SentimentGatewayServiceServicer_to_server(gateway, server.server)
        service = f"{PACKAGE}.SentimentGatewayService" if name == "gateway" else add_stage(server.server, name, stage)
        await server.start([service])
        self.addresses[name] = server.address
        self._servers.append(server)
        self._exit.push_async_callback(server.stop)
        self._group.create_task(
            server.watch(self._connections.checks(name), self._stop_watching, self.metrics.dependency, degraded)
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
        self._connections.watch(server, lambda: worker.waiting)
        await worker.publish_again(unpublished)
        self._workers.append(worker)
        self._worker_tasks.append(self._group.create_task(worker.run(self._stop), name=name))

    def _configured_port(self, name: str) -> int:
        port: int = getattr(self.settings.server, f"{name}_port")
        return port

    async def _know_authors(self) -> None:
        """Refresh the known bots from now on; where PostgreSQL is configured or ours, learn who else is one."""
        pool = await self._connections.any_database()
        refresher = known_bots.configured(self.settings, self.metrics, self._connections.redis, pool)
        refreshing = self._group.create_task(refresher.run(self._stop), name="known bots")
        self._exit.callback(refreshing.cancel)
        if pool is not None and self.settings.spam_filter.author_history.enabled:
            store, client = AuthorStore(pool), self._connections.redis
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
        pool = self._connections.database
        async for attempt in stamina.retry_context(on=StorageUnavailableError, attempts=None, timeout=START_SECONDS):
            with attempt:
                await migrate(pool)
        sink = self._sink = build.live_sink(
            self.metrics, self._bus, self._connections.cache(), on_live=self._on_live, on_visible=self._on_visible
        )
        self._connections.watch("redis", lambda: sink.failing)
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
            writers = build.writers(settings, self.metrics, pool, self._connections.influx)
            for name, topic, input_type, writer in writers:
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
        if self._connections.influx is not None:
            try:
                if not await self._bus.lag(AGGREGATES, "influxdb-windows"):
                    counts = await self._connections.influx.window_counts(symbols, first_ms, before_ms)
            except (StorageUnavailableError, NotFoundError) as error:
                log.warning("baseline.not_from_influxdb", error=str(error))
        if counts is None:
            counts = await AggregateStore(self._connections.database).window_counts(symbols, first_ms, before_ms)
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
        except (OSError, nats.errors.Error):
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
        return await AggregateStore(self._connections.database).count_windows()

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
