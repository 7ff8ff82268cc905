"""The stage host: everything a stage needs around it and must not contain.

A worker pulls a batch from JetStream, has the stage process it, publishes the outcomes with a message id and
acknowledges the batch only once they are stored. While one batch is being confirmed the next is processed;
results are published in the order of the inputs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import nats.errors
import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from sentimesh.bus import DEAD_LETTERS, REASON_HEADER, TOPIC_OF, Bus, Publication, Topic
from sentimesh.errors import SentimeshError
from sentimesh.pb.pipeline_pb2 import DeadLetter
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject, Stage
from sentimesh.telemetry import Metrics, Tracing

log = structlog.get_logger(__name__)

FETCH_SECONDS = 0.2
TICK_SECONDS = 1.0
RETRY_SECONDS = 1.0
# Batches of one stage that may wait for their confirmation while the next is processed.
BATCHES_IN_FLIGHT = 4


class Observer(Protocol):
    """Is told what became of each input; used by replays and the demo for their books."""

    def on_outcomes(self, stage: str, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        """``message`` is None where the input could not be decoded or a clock tick brought the outcomes."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker pulls: messages a batch, seconds until the broker hands an unfinished one out again,
    and how many times it is handed out before it is a dead letter.
    """

    batch_size: int = 200
    ack_wait_seconds: float = 120.0
    max_deliver: int = 5


@dataclass(slots=True)
class _Input:
    message: Msg
    outcomes: Sequence[Outcome]
    headers: Mapping[str, str]
    decoded: Message | None


class StageWorker:
    """Moves messages from a stream through a stage to the next streams."""

    def __init__(
        self,
        name: str,
        stage: Stage[Any],
        bus: Bus,
        topic: Topic,
        input_type: type[Message],
        *,
        metrics: Metrics,
        tracing: Tracing,
        observers: Sequence[Observer] = (),
        config: WorkerConfig | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.name = name
        self.stage = stage
        self.topic = topic
        self._bus = bus
        self._input_type = input_type
        self._metrics = metrics
        self._tracing = tracing
        self._observers = observers
        self._config = config or WorkerConfig()
        self._now_ms = now_ms

    @property
    def durable(self) -> str:
        """Name of the durable consumer that all replicas share."""
        return self.name

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; what has been pulled by then is finished first."""
        subscription = await self._bus.subscribe(
            self.topic,
            self.durable,
            ack_wait_seconds=self._config.ack_wait_seconds,
            max_ack_pending=self._config.batch_size * (BATCHES_IN_FLIGHT + 3),
        )
        confirming: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue(BATCHES_IN_FLIGHT)
        next_tick = time.monotonic() + TICK_SECONDS
        previous: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            fetching: asyncio.Task[list[Msg]] | None = group.create_task(self._fetch(subscription))
            while fetching is not None:
                messages = await fetching
                # The next batch is on its way while this one is processed; none is asked for after the stop.
                fetching = None if stop.is_set() else group.create_task(self._fetch(subscription))
                inputs = await self._process(messages) if messages else []
                ticked: Sequence[Outcome] = ()
                if time.monotonic() >= next_tick:
                    ticked = await self._tick()
                    next_tick = time.monotonic() + TICK_SECONDS
                if inputs or ticked:
                    previous = group.create_task(self._confirm(inputs, ticked, previous))
                    if confirming.full():
                        await confirming.get_nowait()
                    confirming.put_nowait(previous)
        log.info("stage.drained", stage=self.name)

    async def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Publish outcomes that no message brought about (the end of a replay) and wait until they are stored."""
        await self._confirm([], outcomes, None)

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> list[Msg]:
        try:
            messages: list[Msg] = await subscription.fetch(self._config.batch_size, timeout=FETCH_SECONDS)
        except (TimeoutError, nats.errors.Error):
            if not self._bus.connected:
                await asyncio.sleep(FETCH_SECONDS)
            return []
        return messages

    async def _process(self, messages: Sequence[Msg]) -> list[_Input]:
        inputs: list[_Input] = []
        deliveries: list[Delivery[Message]] = []
        waiting: list[_Input] = []
        for message in messages:
            sequence = message.metadata.sequence.stream
            entry = _Input(message, (), {}, None)
            inputs.append(entry)
            if message.metadata.num_delivered > self._config.max_deliver:
                entry.outcomes = (Reject(f"not finished in {self._config.max_deliver} deliveries"),)
                continue
            try:
                decoded = self._input_type.FromString(message.data)
            except DecodeError as error:
                entry.outcomes = (Reject(f"not a {self._input_type.DESCRIPTOR.full_name}: {error}"),)
                continue
            with self._tracing.span(
                f"{self.name} process", message.headers, {"messaging.message.stream_sequence": sequence}
            ):
                entry.headers = self._tracing.headers()
            entry.decoded = decoded
            deliveries.append(Delivery(decoded, sequence))
            waiting.append(entry)
        for entry, outcomes in zip(waiting, await self._outcomes(deliveries), strict=True):
            entry.outcomes = outcomes
        return inputs

    async def _outcomes(self, deliveries: Sequence[Delivery[Message]]) -> Sequence[Sequence[Outcome]]:
        """Process a batch, again after an outage; a message that fails alone becomes a dead letter."""
        if not deliveries:
            return []
        while True:
            try:
                return await self.stage.process(deliveries)
            except SentimeshError as error:
                # Something it needs is away: wait, and with it everything behind (back-pressure).
                self._metrics.stage_errors.labels(self.name).inc()
                log.warning("stage.waiting", stage=self.name, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                self._metrics.stage_errors.labels(self.name).inc()
                log.exception("stage.failed", stage=self.name, messages=len(deliveries))
                if len(deliveries) == 1:
                    return [[Reject(f"{self.name} failed on it: {type(error).__name__}: {error}")]]
                break
        middle = len(deliveries) // 2
        return [*await self._outcomes(deliveries[:middle]), *await self._outcomes(deliveries[middle:])]

    async def _tick(self) -> Sequence[Outcome]:
        try:
            return await self.stage.tick()
        except SentimeshError as error:
            self._metrics.stage_errors.labels(self.name).inc()
            log.warning("stage.waiting", stage=self.name, error=str(error))
            return ()

    async def _confirm(
        self, inputs: Sequence[_Input], ticked: Sequence[Outcome], previous: asyncio.Task[None] | None
    ) -> None:
        if previous is not None:
            # Publishing in the order of the inputs keeps a replay the same from run to run.
            await asyncio.wait([previous])
        publications = [p for entry in inputs for p in self._publications(entry)]
        publications += [self._forward(outcome, {}) for outcome in ticked if isinstance(outcome, Forward)]
        await self._bus.publish_confirmed(publications)
        for entry in inputs:
            self._account(entry.decoded, entry.outcomes)
            await entry.message.ack()
        if ticked:
            self._account(None, ticked)

    def _account(self, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._metrics.outcome(self.name, outcome)
        for observer in self._observers:
            observer.on_outcomes(self.name, message, outcomes)

    def _publications(self, entry: _Input) -> list[Publication]:
        found: list[Publication] = []
        for outcome in entry.outcomes:
            match outcome:
                case Forward():
                    found.append(self._forward(outcome, entry.headers))
                case Reject(reason=reason):
                    found.append(self._dead_letter(entry.message, reason))
                case Drop():
                    pass
        return found

    def _forward(self, outcome: Forward, headers: Mapping[str, str]) -> Publication:
        subject = f"{TOPIC_OF[type(outcome.message)].prefix}.{outcome.symbol}"
        return subject, outcome.message, f"{outcome.identity}/{outcome.symbol}/{self.name}", headers

    def _dead_letter(self, message: Msg, reason: str) -> Publication:
        sequence = message.metadata.sequence.stream
        letter = DeadLetter(
            stage=self.name,
            subject=message.subject,
            reason=reason,
            payload=message.data,
            failed_at_ms=self._now_ms(),
            stream_sequence=sequence,
        )
        # A header is one line.
        headers = {REASON_HEADER: " ".join(reason.split())}
        return f"{DEAD_LETTERS.prefix}.{self.name}", letter, f"{self.topic.stream}/{sequence}/{self.name}/dlq", headers
