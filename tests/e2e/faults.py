"""A whole deployment whose parts can be killed: four servers, five stage processes, and the rows that come out.

Used by tests/e2e/test_faults.py and bench/faults.py. Posts are the simulator's, on the event clock, so that two runs
over the same posts have to end in the same rows whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from pydantic import SecretStr

from ingest_svc.sources.simulator import simulate
from sentimesh.bus import TOPICS, Bus
from sentimesh.connections import STAGES
from sentimesh.embedded import EmbeddedServers, free_port
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pump import Pump
from sentimesh.settings import DEFAULT_SYMBOLS, InfluxDB
from sentimesh.source import SourcePost
from sentimesh.storage.influx import InfluxStore
from sentimesh.telemetry import Tracing
from tests.influxd import BINARY, Influxd

SENTIMESH = str(Path(sys.executable).with_name("sentimesh"))
MINUTE_MS = 60_000
# Hours ago, so that nothing is old enough to be removed and nothing in the future. The same for all runs of a process.
START_MS = (time.time_ns() // 1_000_000 - 8 * 60 * MINUTE_MS) // (5 * MINUTE_MS) * 5 * MINUTE_MS
SERVERS = ("nats", "valkey", "postgres")
# A consumer is idle when it stays without work for this long.
QUIET_SECONDS = 2.0

# Everything but the row's number, its revision and when it was written.
_WINDOWS = """
SELECT symbol, window_start, window_end, polarity, volume_ratio, credibility, social_sentiment_score,
       directional_score, post_count, unique_authors, platform_breakdown, viral_spike, spike_ratio, baseline_ready,
       insufficient_data
FROM social_sentiment_scores
"""
_SPIKES = """
SELECT symbol, detected_at, spike_ratio, mention_count, baseline_rate, dominant_platform, sample_posts, resolved_at
FROM social_viral_spikes
"""

Rows = dict[tuple[str, Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Simulated posts: ``posts`` of them at ``per_minute`` by the wall clock, their own times ``stretch`` times as far
    apart.
    """

    posts: int
    per_minute: float = 10_000
    stretch: float = 30.0
    seed: int = 7

    @property
    def seconds(self) -> float:
        """How long it takes to send them."""
        return self.posts / self.per_minute * 60

    def source(self) -> CrowdSource:
        """Return it as a source."""
        return CrowdSource(self)


class CrowdSource:
    """Yields the posts at their pace, and one more that closes the windows of the last ones."""

    name = "crowd"

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.sent = 0

    async def posts(self) -> AsyncIterator[SourcePost]:
        """Yield them."""
        crowd = self._crowd
        began = time.monotonic()
        last_ms = START_MS
        posts = simulate(crowd.seed, START_MS, DEFAULT_SYMBOLS, crowd.per_minute / crowd.stretch)
        for number, post in zip(range(crowd.posts), posts, strict=False):
            due = began + number * 60 / crowd.per_minute
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            last_ms = post.event_time_ms
            yield _source_post(post.platform, post.payload, post.event_time_ms, post.post_id)
            self.sent += 1
        closing_ms = last_ms + 15 * MINUTE_MS
        closing = next(simulate(crowd.seed + 1, closing_ms, ["BTC"], 60))
        yield _source_post(closing.platform, closing.payload, closing.event_time_ms, "closing")


def _source_post(platform: str, payload: Any, at_ms: int, identity: str) -> SourcePost:
    raw = RawPost(platform=platform, payload=orjson.dumps(payload), received_at_ms=at_ms, source="crowd")
    return SourcePost(raw, f"crowd/{identity}", at_ms)


@dataclass(slots=True)
class Outcome:
    """What a run left behind, and how long each kill took to get over (seconds)."""

    windows: Rows
    spikes: Rows
    points: Rows
    recoveries: list[float] = field(default_factory=list)


class Deployment:
    """Servers and stages of one run, in a folder. Use as an async context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str = "vader",
        influxdb: bool = True,
        sync_always: bool = True,
        clock: str = "event",
        stages: Sequence[str] = STAGES,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._names = stages
        self._ports = {name: free_port() for name in (*SERVERS, *STAGES)}
        self._sync_always = sync_always
        self._model = model
        self._servers: dict[str, EmbeddedServers] = {}
        self._stages: dict[str, asyncio.subprocess.Process] = {}
        self._logs: dict[str, Any] = {}
        self._influxd = Influxd(self._made("influxd")) if influxdb and BINARY.is_file() else None
        self._bus: Bus

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything that can be killed."""
        return (*self._names, *SERVERS, *(("influxdb",) if self._influxd else ()))

    @property
    def urls(self) -> dict[str, str]:
        """URL of each server, by the names of the settings."""
        return {
            "nats": self._servers["nats"].nats_url,
            "redis": self._servers["valkey"].redis_url,
            "postgresql": self._servers["postgres"].postgres_dsn,
        }

    @property
    def process_ids(self) -> dict[str, int]:
        """Process id of each stage and server."""
        stages = {name: process.pid for name, process in self._stages.items()}
        return stages | {name: server.process_ids[name] for name, server in self._servers.items()}

    async def __aenter__(self) -> Deployment:
        try:
            await asyncio.gather(*(self._start_server(name) for name in SERVERS))
            self._bus = Bus(SecretStr(self._servers["nats"].nats_url))
            await self._bus.__aenter__()
            for name in self._names:
                await self._start_stage(name)
            await self._serving()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._bus.__aexit__(None, None, None)
        await self._stop()

    async def run(self, crowd: Crowd, kills: Sequence[str] = (), seed: int = 0) -> Outcome:
        """Send the posts, kill these parts one after the other meanwhile, wait until all is done; return the rows."""
        recoveries: list[float] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(Pump(crowd.source(), self._bus, Tracing("faults", None)).run(asyncio.Event()))
            group.create_task(self._kill_at_random(kills, crowd.seconds, seed, recoveries))
        await self.idle()
        windows, spikes, points = await self._rows()
        return Outcome(windows, spikes, points, recoveries)

    async def kill(self, target: str) -> None:
        """End it with SIGKILL."""
        if target in STAGES:
            process = self._stages.pop(target)
            process.kill()
            await process.wait()
        elif target == "influxdb" and self._influxd is not None:
            await asyncio.to_thread(self._influxd.kill)
        else:
            server = self._servers[target]
            os.kill(server.process_ids[target], signal.SIGKILL)
            await server.__aexit__(None, None, None)

    async def start(self, target: str) -> None:
        """Start again what was killed."""
        if target in STAGES:
            await self._start_stage(target)
        elif target == "influxdb" and self._influxd is not None:
            await asyncio.to_thread(self._influxd.start)
        else:
            await self._start_server(target)

    async def idle(self) -> None:
        """Wait until every consumer has finished what is in its stream, the writers included."""
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + QUIET_SECONDS:
            self._refuse_dead()
            if await self.backlog():
                quiet_since = time.monotonic()
            await asyncio.sleep(0.1)

    async def backlog(self) -> int:
        """Return how many messages are not finished, over all consumers; at least 1 while NATS cannot say."""
        total = 0
        try:
            for topic in TOPICS:
                for consumer in await self._bus.jetstream.consumers_info(topic.stream):
                    if consumer.config.ack_policy != "none":
                        total += (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
        except Exception:
            # Whatever the client raises while the broker is away.
            return 1
        return total

    async def _kill_at_random(self, kills: Sequence[str], seconds: float, seed: int, recoveries: list[float]) -> None:
        chance = random.Random(seed)
        began = time.monotonic()
        for number, target in enumerate(kills):
            # One in each equal part of the time, anywhere in its first half: the other half is to get over it.
            at = began + seconds * (number + chance.random() / 2) / len(kills)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            usual = max(500, 2 * await self.backlog())
            killed = time.monotonic()
            await self.kill(target)
            await self.start(target)
            while await self.backlog() > usual or not await self._answers(target):
                self._refuse_dead()
                await asyncio.sleep(0.05)
            recoveries.append(time.monotonic() - killed)

    async def _answers(self, target: str) -> bool:
        if target not in STAGES:
            return True
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self._ports[target])
            writer.close()
            return True
        return False

    async def answering(self, name: str) -> None:
        """Wait until a stage's port answers."""
        while not await self._answers(name):  # noqa: ASYNC110 (another process is asked)
            await asyncio.sleep(0.02)

    async def _serving(self) -> None:
        while not all([await self._answers(name) for name in self._names]):
            self._refuse_dead()
            await asyncio.sleep(0.05)

    def _refuse_dead(self) -> None:
        """Raise RuntimeError when a stage has ended that nobody killed."""
        for name, process in self._stages.items():
            if process.returncode is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}: {self._log(name).read_text()}")

    async def _start_server(self, name: str) -> None:
        wanted = {"nats": name == "nats", "redis": name == "valkey", "postgres": name == "postgres"}
        server = EmbeddedServers(
            self._made(name), **wanted, sync_always=self._sync_always, ports={name: self._ports[name]}
        )
        await server.__aenter__()
        self._servers[name] = server

    async def _start_stage(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._stages[name] = await asyncio.create_subprocess_exec(
                SENTIMESH, "run", name, env=self._environment(), stdout=log, stderr=log
            )

    def _environment(self) -> dict[str, str]:
        influx: InfluxDB | None = self._influxd.section() if self._influxd else None
        ports = {f"SENTIMESH__SERVER__{name.upper()}_PORT": str(self._ports[name]) for name in STAGES}
        series = (
            {
                "SENTIMESH__STORAGE__INFLUXDB__URL": influx.url.get_secret_value(),
                "SENTIMESH__STORAGE__INFLUXDB__TOKEN": influx.token.get_secret_value(),
            }
            if influx is not None and influx.url is not None and influx.token is not None
            else {}
        )
        return {
            **os.environ,
            **ports,
            **series,
            "SENTIMESH__SERVER__METRICS_PORT": "0",
            "SENTIMESH__NATS__URL": self.urls["nats"],
            "SENTIMESH__STORAGE__REDIS__URL": self.urls["redis"],
            "SENTIMESH__STORAGE__POSTGRESQL__DSN": self.urls["postgresql"],
            "SENTIMESH__MODEL__PRIMARY": self._model,
            "SENTIMESH__AGGREGATION__CLOCK": self._clock,
        }

    async def _rows(self) -> tuple[Rows, Rows, Rows]:
        connection = await asyncpg.connect(self._servers["postgres"].postgres_dsn)
        try:
            windows = {(row["symbol"], row["window_start"]): tuple(row) for row in await connection.fetch(_WINDOWS)}
            spikes = {(row["symbol"], row["detected_at"]): tuple(row) for row in await connection.fetch(_SPIKES)}
        finally:
            await connection.close()
        return windows, spikes, await self._points()

    async def _points(self) -> Rows:
        """Return the posts of each window as InfluxDB has them."""
        if self._influxd is None:
            return {}
        store = InfluxStore.configured(self._influxd.section())
        assert store is not None
        try:
            counts = await store.window_counts(DEFAULT_SYMBOLS, 0, START_MS + 10**10)
        finally:
            await store.close()
        return {(symbol, end_ms): (count,) for symbol, end_ms, count in counts}

    async def _stop(self) -> None:
        for process in self._stages.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for server in self._servers.values():
            await server.__aexit__(None, None, None)
        if self._influxd is not None:
            await asyncio.to_thread(self._influxd.stop)

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        # PostgreSQL, when run as root, is another user.
        self._folder.chmod(0o755)
        return folder

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows of an undisturbed run against those of a disturbed one."""

    rows: int
    missing: int
    extra: int
    different: int
    # Posts counted by the disturbed run's windows less those by the undisturbed one's, where it has more and less.
    posts_doubled: int
    posts_lost: int
    example: str


def compare(expected: Rows, found: Rows, count: int | None = None) -> Difference:
    """Compare by key; ``count`` is the place of post_count in a row."""
    different = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    deltas = [found[key][count] - expected[key][count] for key in different] if count is not None else []
    example = min(different, default=None, key=str)
    return Difference(
        len(expected),
        len(expected.keys() - found.keys()),
        len(found.keys() - expected.keys()),
        len(different),
        sum(delta for delta in deltas if delta > 0),
        -sum(delta for delta in deltas if delta < 0),
        "" if example is None else f"{example}: {expected[example]} became {found[example]}",
    )


def differences(expected: Outcome, found: Outcome) -> Sequence[tuple[str, Difference]]:
    """Compare tables and points."""
    return (
        ("windows", compare(expected.windows, found.windows, count=8)),
        ("spikes", compare(expected.spikes, found.spikes)),
        ("points", compare(expected.points, found.points, count=0)),
    )
