"""The stage host: everything a stage needs around it and must not contain.

A worker pulls a batch from JetStream, has the stage process it, publishes the outcomes with a message id and
acknowledges the batch only once they are stored. While one batch is being confirmed the next is processed;
results are published in the order of the inputs. After a crash the unfinished messages come first and in order, so
that the next stage sees what it would have seen without the crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import nats.errors
import nats.js.errors
import stamina
import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from sentimesh.bus import DEAD_LETTERS, REASON_HEADER, TOPIC_OF, Bus, Publication, Topic
from sentimesh.errors import SentimeshError, StorageRefusedError
from sentimesh.pb.pipeline_pb2 import DeadLetter
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject, Stage
from sentimesh.telemetry import Metrics, Tracing

log = structlog.get_logger(__name__)

FETCH_SECONDS = 0.2
TICK_SECONDS = 1.0
RETRY_SECONDS = 2.0
# Batches of one stage that may wait for their confirmation while the next is processed.
BATCHES_IN_FLIGHT = 4


# Sequence and time of a message in its stream: a stream that is made anew counts from 1 again.
_Key = tuple[int, dt.datetime]


def _key(message: Msg) -> _Key:
    return message.metadata.sequence.stream, message.metadata.timestamp


async def _acknowledge(message: Msg) -> None:
    # Lost with the connection: the message comes again, and its outcome is stored once all the same.
    with contextlib.suppress(nats.errors.Error, OSError):
        await message.ack()


def _is_outage(error: Exception) -> bool:
    return isinstance(error, SentimeshError) and not isinstance(error, StorageRefusedError)


def _is_broker_away(error: Exception) -> bool:
    if isinstance(error, nats.js.errors.APIError):
        # What the broker refuses it will refuse again.
        return isinstance(error, nats.js.errors.ServerError | nats.js.errors.ServiceUnavailableError)
    return isinstance(error, OSError | nats.errors.Error)


class Observer(Protocol):
    """Is told what became of each input; used by replays and the demo for their books."""

    def on_outcomes(self, stage: str, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        """``message`` is None where the input could not be decoded or a clock tick brought the outcomes."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker pulls: messages a batch, seconds until the broker takes a worker for dead and hands its messages
    to another, and how many times one is handed out before it is suspected of killing its worker.

    A batch is what is there, and if that does not fill it, what comes in the next ``linger_seconds``.
    """

    batch_size: int = 200
    linger_seconds: float = 0.0
    ack_wait_seconds: float = 30.0
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
        durable: str | None = None,
        subjects: Sequence[str] = (),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``durable``: name of the consumer shared by all replicas that name it, the stage's by default; ``subjects``:
        stored subjects to work on, all of the topic by default.
        """
        self.name = name
        self.stage = stage
        self.topic = topic
        self.durable = durable or name
        self._subjects = subjects
        # Something the stage needs is away, and it waits for that.
        self.waiting = False
        self._held: dict[_Key, Msg] = {}
        self._connections = 0
        self._bus = bus
        self._input_type = input_type
        self._metrics = metrics
        self._tracing = tracing
        self._observers = observers
        self._config = config or WorkerConfig()
        self._max_ack_pending = self._config.batch_size * (BATCHES_IN_FLIGHT + 3)
        # As many as can have been handed out again at once, oldest first.
        self._finished: dict[_Key, None] = {}
        self._now_ms = now_ms

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; what has been pulled by then is finished first."""
        subscription = await self._begin()
        confirming: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue(BATCHES_IN_FLIGHT)
        next_tick = time.monotonic() + TICK_SECONDS
        previous: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold())
            fetching: asyncio.Task[list[Msg]] | None = group.create_task(self._fetch(subscription))
            while fetching is not None:
                messages = await fetching
                # The next batch is on its way while this one is processed; none is asked for after the stop.
                fetching = None if stop.is_set() else group.create_task(self._fetch(subscription))
                if any(self._is_suspect(message) for message in messages):
                    await self._one_by_one(messages, previous)
                    messages = []
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
            while not confirming.empty():
                await confirming.get_nowait()
            holding.cancel()
        log.info("stage.drained", stage=self.name)

    async def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Publish outcomes that no message brought about (the end of a replay) and wait until they are stored."""
        await self._confirm([], outcomes, None)

    async def publish_again(self, outcomes: Sequence[Outcome]) -> None:
        """Publish what an earlier run may not have published, without counting it again."""
        await self._bus.publish_confirmed([self._forward(o, {}) for o in outcomes if isinstance(o, Forward)])

    async def _begin(self) -> JetStreamContext.PullSubscription:
        """Take the consumer and subscribe to it, however often the broker goes away meanwhile."""
        async for attempt in stamina.retry_context(
            on=_is_broker_away, attempts=None, timeout=None, wait_initial=0.1, wait_max=RETRY_SECONDS, wait_jitter=0.5
        ):
            with attempt:
                try:
                    await self._take_consumer()
                    subscription = await self._bus.jetstream.pull_subscribe_bind(self.durable, stream=self.topic.stream)
                except Exception as error:
                    if _is_broker_away(error):
                        self._metrics.stage_errors.labels(self.name).inc()
                        log.warning("stage.waiting", stage=self.name, error=type(error).__name__)
                    raise
        return subscription

    async def _take_consumer(self) -> None:
        connections = self._bus.connections
        await self._bus.take_consumer(
            self.topic,
            self.durable,
            ack_wait_seconds=self._config.ack_wait_seconds,
            max_ack_pending=self._max_ack_pending,
            subjects=self._subjects,
        )
        self._connections = connections

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> list[Msg]:
        try:
            if self._connections != self._bus.connections:
                # What was on its way to us is lost, and has to come again before what follows it.
                await self._take_consumer()
            messages: list[Msg] = await subscription.fetch(self._config.batch_size, timeout=FETCH_SECONDS)
            await self._linger(subscription, messages)
        except (OSError, nats.errors.Error):
            if not self._bus.connected:
                await asyncio.sleep(FETCH_SECONDS)
            return []
        if self._connections != self._bus.connections:
            return []
        return [message for message in messages if await self._is_new(message)]

    async def _is_new(self, message: Msg) -> bool:
        """Tell whether this is not one that took longer than ack_wait, was handed out again and got there after all."""
        key = _key(message)
        if key in self._finished:
            await _acknowledge(message)
            return False
        is_new = key not in self._held
        # Of several of one message the latest is the one to acknowledge.
        self._held[key] = message
        return is_new

    async def _linger(self, subscription: JetStreamContext.PullSubscription, messages: list[Msg]) -> None:
        """Wait for more until the batch is full or has waited long enough."""
        until = time.monotonic() + self._config.linger_seconds
        while (missing := self._config.batch_size - len(messages)) > 0 and (rest := until - time.monotonic()) > 0:
            try:
                messages += await subscription.fetch(missing, timeout=rest)
            except (OSError, nats.errors.Error):
                # What is here already goes on, whatever came of asking for more.
                return

    async def _hold(self) -> None:
        """Keep what is being worked on from being handed out again while this takes long (an outage is waited for)."""
        while True:
            await asyncio.sleep(self._config.ack_wait_seconds / 3)
            for message in list(self._held.values()):
                # The broker away: it hands the message out again, and the outcome is stored once all the same.
                with contextlib.suppress(nats.errors.Error, OSError):
                    await message.in_progress()

    def _is_suspect(self, message: Msg) -> bool:
        return message.metadata.num_delivered > self._config.max_deliver

    async def _one_by_one(self, messages: Sequence[Msg], previous: asyncio.Task[None] | None) -> None:
        """Finish each message before the next is begun.

        Many deliveries mean that the worker died of one of these, over and over, without a word. If it does again, the
        first message that is not finished is to blame: next time that one is a dead letter, and no other.
        """
        for number, message in enumerate(messages):
            deliveries = message.metadata.num_delivered
            if number == 0 and deliveries > self._config.max_deliver + 1:
                reason = f"not finished in {deliveries - 1} deliveries"
                inputs = [_Input(message, (Reject(reason),), {}, None)]
            else:
                inputs = await self._process([message])
            await self._confirm(inputs, (), previous)

    async def _process(self, messages: Sequence[Msg]) -> list[_Input]:
        inputs: list[_Input] = []
        deliveries: list[Delivery[Message]] = []
        waiting: list[_Input] = []
        for message in messages:
            sequence = message.metadata.sequence.stream
            entry = _Input(message, (), {}, None)
            inputs.append(entry)
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
        try:
            return await self._process_through_outages(deliveries)
        except Exception as error:
            refused = isinstance(error, StorageRefusedError)
            self._metrics.stage_errors.labels(self.name).inc()
            if refused:
                log.warning("stage.refused", stage=self.name, messages=len(deliveries), error=str(error))
            else:
                log.exception("stage.failed", stage=self.name, messages=len(deliveries))
            if len(deliveries) == 1:
                reason = str(error) if refused else f"{self.name} failed on it: {type(error).__name__}: {error}"
                return [[Reject(reason)]]
        middle = len(deliveries) // 2
        return [*await self._outcomes(deliveries[:middle]), *await self._outcomes(deliveries[middle:])]

    async def _process_through_outages(self, deliveries: Sequence[Delivery[Message]]) -> Sequence[Sequence[Outcome]]:
        outcomes: Sequence[Sequence[Outcome]] = []
        async for attempt in stamina.retry_context(
            on=_is_outage, attempts=None, timeout=None, wait_initial=0.1, wait_max=RETRY_SECONDS, wait_jitter=0.5
        ):
            with attempt:
                try:
                    outcomes = await self.stage.process(deliveries)
                    self.waiting = False
                except SentimeshError as error:
                    if _is_outage(error):
                        # And everything behind it waits, too (back-pressure).
                        self.waiting = True
                        self._metrics.stage_errors.labels(self.name).inc()
                        log.warning("stage.waiting", stage=self.name, error=str(error))
                    raise
        return outcomes

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
            key = _key(entry.message)
            self._finished[key] = None
            if len(self._finished) > self._max_ack_pending:
                del self._finished[next(iter(self._finished))]
            await _acknowledge(self._held.pop(key, entry.message))
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
                case Drop(post_id=post_id, symbol=symbol, record=Message() as record):
                    found.append(self._forward(Forward(record, symbol, post_id), entry.headers))
        return found

    def _forward(self, outcome: Forward, headers: Mapping[str, str]) -> Publication:
        subject = f"{TOPIC_OF[type(outcome.message)].prefix}.{outcome.symbol}"
        return subject, outcome.message, f"{outcome.identity}/{outcome.symbol}/{self.name}", headers

    def _dead_letter(self, message: Msg, reason: str) -> Publication:
        sequence = message.metadata.sequence.stream
        letter = DeadLetter(
            stage=self.name,
            subject=self.topic.published_subject(message.subject),
            reason=reason,
            payload=message.data,
            failed_at_ms=self._now_ms(),
            stream_sequence=sequence,
        )
        # A header is one line.
        headers = {REASON_HEADER: " ".join(reason.split())}
        return f"{DEAD_LETTERS.prefix}.{self.name}", letter, f"{self.topic.stream}/{sequence}/{self.name}/dlq", headers
