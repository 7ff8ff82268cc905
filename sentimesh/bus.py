"""JetStream: the streams between the stages, publishing with de-duplication, and reading back.

Subjects and stream names are public interface (ARCHITECTURE, one picture).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import nats
import nats.errors
import nats.js.errors
import stamina
import structlog
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from pydantic import SecretStr

from sentimesh.errors import SentimeshError
from sentimesh.pb.pipeline_pb2 import DeadLetter, FilteredPost, RawPost, RejectedPost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.read_back import Batch, listening

log = structlog.get_logger(__name__)

MESSAGE_ID_HEADER = "Nats-Msg-Id"
REASON_HEADER = "Sentimesh-Reason"
# How long the broker remembers message ids; a crashed stage is back long before.
DUPLICATE_WINDOW_SECONDS = 600.0
CONNECT_SECONDS = 10.0
CONFIRM_SECONDS = 30.0
EXPIRE_SECONDS = 0.1
EXPIRED_SECONDS = 0.5
LOOK_SECONDS = 0.5
READ_BACK_BATCH = 2000
UNCONFIRMED = (nats.errors.Error, OSError, TimeoutError)
# Subject, message, message id, further headers.
Publication = tuple[str, Message, str, Mapping[str, str]]
LIVE_SUBJECT = "social.live"


@dataclass(frozen=True, slots=True)
class Topic:
    """One JetStream stream and the prefix of its subjects.

    A partitioned one stores ``{prefix}.{symbol}`` as ``{prefix}.{partition}.{symbol}``.
    """

    stream: str
    prefix: str
    partitioned: bool = False

    @property
    def stored_subjects(self) -> str:
        """Every subject under which the stream stores messages."""
        return f"{self.prefix}.*.*" if self.partitioned else f"{self.prefix}.*"

    def published_subject(self, stored: str) -> str:
        """Return the subject under which a message was published."""
        return f"{self.prefix}.{stored.rsplit('.', 1)[1]}" if self.partitioned else stored


RAW = Topic("SOCIAL_RAW", "social.raw")
NORMALIZED = Topic("SOCIAL_NORMALIZED", "social.normalized")
FILTERED = Topic("SOCIAL_FILTERED", "social.filtered")
REJECTED = Topic("SOCIAL_REJECTED", "social.rejected")
SCORED = Topic("SOCIAL_SCORED", "social.scored", partitioned=True)
AGGREGATES = Topic("SOCIAL_AGGREGATES", "social.aggregates")
VIRAL_ALERTS = Topic("SOCIAL_VIRAL_ALERTS", "social.viral-alerts")
DEAD_LETTERS = Topic("SOCIAL_DLQ", "social.dlq")
TOPICS = (RAW, NORMALIZED, FILTERED, REJECTED, SCORED, AGGREGATES, VIRAL_ALERTS, DEAD_LETTERS)

# Where a message of each type belongs.
TOPIC_OF: Mapping[type[Message], Topic] = {
    RawPost: RAW,
    SocialPost: NORMALIZED,
    FilteredPost: FILTERED,
    RejectedPost: REJECTED,
    ScoredPost: SCORED,
    SentimentAggregate: AGGREGATES,
    ViralSpike: VIRAL_ALERTS,
    DeadLetter: DEAD_LETTERS,
}


def partition_of(symbol: str, partitions: int) -> int:
    """Return the partition, 0 to ``partitions`` - 1, that the broker's ``partition()`` gives a symbol (FNV-1a)."""
    digest = 0x811C9DC5
    for byte in symbol.encode():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return digest % partitions


class BusUnavailableError(SentimeshError):
    """The broker does not answer or does not do JetStream."""


class Bus:
    """A connection to the broker. Use as an async context manager."""

    def __init__(
        self, url: SecretStr, *, max_inflight: int = 256, retention_hours: int = 168, partitions: int = 20
    ) -> None:
        """``max_inflight``: unconfirmed publishes at a time; ``retention_hours``: maximum age of every stream;
        ``partitions``: of the streams that are partitioned by symbol.
        """
        self._url = url
        self._partitions = partitions
        self._retention_seconds = retention_hours * 3600.0
        self._inflight = asyncio.Semaphore(max_inflight)
        self._client = Client()
        self._closed = False
        self._jetstream: JetStreamContext | None = None

    async def __aenter__(self) -> Bus:
        try:
            # Reconnecting goes on for ever, a first connection does not.
            connecting = self._client.connect(
                self._url.get_secret_value(),
                name="sentimesh",
                connect_timeout=5,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                # Nothing is held back for a broker that is away: it would overtake what was lost on the way.
                pending_size=0,
                allow_reconnect=True,
                error_cb=self._on_error,
            )
            await asyncio.wait_for(connecting, CONNECT_SECONDS)
            # Its own limit never frees the place of a message that was lost; ours does.
            self._jetstream = self._client.jetstream(timeout=10, publish_async_max_pending=sys.maxsize)
            await self.ensure_streams()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            await self._close()
            message = (
                f"the NATS server configured as nats.url cannot be used ({type(error).__name__}): "
                "start one with JetStream on, or leave nats.url out for an embedded one"
            )
            raise BusUnavailableError(message) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if not self._client.is_closed:
            # What nats-py would still send has nowhere to go while the broker is away.
            with contextlib.suppress(OSError, nats.errors.Error):
                await self._client.close()
        self._closed = True

    async def _on_error(self, error: Exception) -> None:
        if self._closed:
            # wait_for of Python 3.11 swallows a cancellation that comes together with a refused connection: nats-py
            # would go on trying to connect for good, and the process would not end.
            raise asyncio.CancelledError
        log.warning("bus.error", error=type(error).__name__)

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""
        return self._client.is_connected

    @property
    def connections(self) -> int:
        """How many times the connection has been made again: when it rises, messages on their way were lost."""
        return int(self._client.stats["reconnects"])

    @property
    def client(self) -> Client:
        """The plain NATS connection, for subjects that are not kept (live updates)."""
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context; only inside the context manager."""
        if self._jetstream is None:
            raise BusUnavailableError("the bus is not connected: use it inside `async with`")
        return self._jetstream

    async def ensure_streams(self) -> None:
        """Create the streams, or bring those that exist to this configuration; safe to repeat and to race."""
        for topic in TOPICS:
            config = api.StreamConfig(
                name=topic.stream,
                subjects=[f"{topic.prefix}.*"],
                storage=api.StorageType.FILE,
                max_age=self._retention_seconds,
                duplicate_window=DUPLICATE_WINDOW_SECONDS,
                allow_direct=True,
                subject_transform=api.SubjectTransform(
                    src=f"{topic.prefix}.*",
                    dest=f"{topic.prefix}.{{{{partition({self._partitions},1)}}}}.{{{{wildcard(1)}}}}",
                )
                if topic.partitioned
                else None,
            )
            # The server fails now and then when a stream of that name was deleted a moment ago (err_code 10049).
            async for attempt in stamina.retry_context(
                on=nats.js.errors.ServerError, attempts=5, timeout=None, wait_initial=0.1, wait_max=1.0
            ):
                with attempt:
                    await self._ensure_stream(config)

    async def _ensure_stream(self, config: api.StreamConfig) -> None:
        try:
            await self.jetstream.add_stream(config)
        except nats.js.errors.BadRequestError:
            # It is there with other settings: the name decides, the settings follow.
            await self.jetstream.update_stream(config)

    async def take_consumer(
        self, topic: Topic, durable: str, *, ack_wait_seconds: float, max_ack_pending: int, subjects: Sequence[str] = ()
    ) -> None:
        """Create a durable consumer, or bring it to this configuration, and have what is unfinished come first.

        What an earlier subscriber got and did not acknowledge is delivered again, in the order of the stream and at
        once: it is taken for dead. One that lives works on, and what both do is stored once. ``subjects``: stored
        subjects to deliver, all of them when empty.
        """
        config = _consumer(topic, durable, subjects).evolve(ack_wait=ack_wait_seconds, max_ack_pending=max_ack_pending)
        with contextlib.suppress(nats.js.errors.NotFoundError):
            known = await self.jetstream.consumer_info(topic.stream, durable)
            # Where it began is not to be changed any more.
            config.deliver_policy = known.config.deliver_policy
            config.opt_start_seq = known.config.opt_start_seq
            if known.num_ack_pending:
                # JetStream puts a message back into its place once ack_wait is over, so for a moment it is short.
                await self.jetstream.add_consumer(topic.stream, config.evolve(ack_wait=EXPIRE_SECONDS))
                await asyncio.sleep(EXPIRED_SECONDS)
        await self.jetstream.add_consumer(topic.stream, config)

    async def ensure_consumer(self, topic: Topic, durable: str, subjects: Sequence[str], start_after: int) -> None:
        """Create a durable consumer that begins after that stream sequence, if it is not there."""
        try:
            await self.jetstream.consumer_info(topic.stream, durable)
        except nats.js.errors.NotFoundError:
            config = _consumer(topic, durable, subjects)
            if start_after:
                config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
                config.opt_start_seq = start_after + 1
            await self.jetstream.add_consumer(topic.stream, config)

    async def publish(
        self, subject: str, message: Message, message_id: str, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[api.PubAck]:
        """Send one message and return the future of its confirmation; waits while ``max_inflight`` are unconfirmed.

        Raises nats.errors.Error while the broker is away. A future that is given up on must be cancelled.
        """
        await self._inflight.acquire()
        try:
            sent = await self.jetstream.publish_async(
                subject, message.SerializeToString(), headers={MESSAGE_ID_HEADER: message_id, **(headers or {})}
            )
        except BaseException:
            self._inflight.release()
            raise
        sent.add_done_callback(lambda _sent: self._inflight.release())
        return sent

    async def publish_confirmed(self, messages: Sequence[Publication]) -> None:
        """Publish in order and wait until each is stored, trying again what fails.

        Trying again cannot double anything: the broker drops an id that it has already.
        """
        rest = await self._publish_all(messages)
        if not rest:
            return
        async for attempt in stamina.retry_context(
            on=BusUnavailableError, attempts=None, timeout=None, wait_initial=0.1, wait_max=1.0, wait_jitter=0.5
        ):
            with attempt:
                rest = await self._publish_all(rest)
                if rest:
                    raise BusUnavailableError(
                        f"NATS did not confirm {len(rest)} messages: check the server of nats.url"
                    )

    async def _publish_all(self, messages: Sequence[Publication]) -> list[Publication]:
        """Publish and wait; return those that were not confirmed, in order."""
        connections = self.connections
        sent: list[tuple[Publication, asyncio.Future[api.PubAck]]] = []
        unsent: list[Publication] = []
        for index, message in enumerate(messages):
            try:
                sent.append((message, await self.publish(*message)))
            except UNCONFIRMED:
                # Those behind it wait, or they would overtake it.
                unsent = list(messages[index:])
                break
        await self._settled([future for _, future in sent], connections)
        return [m for m, future in sent if future.cancelled() or future.exception()] + unsent

    async def _settled(self, futures: Sequence[asyncio.Future[api.PubAck]], connections: int) -> None:
        """Wait for confirmations; cancel those that will not come, because the connection they went by is gone."""
        waiting = {future for future in futures if not future.done()}
        deadline = time.monotonic() + CONFIRM_SECONDS
        while waiting and time.monotonic() < deadline and self.connected and self.connections == connections:
            _, waiting = await asyncio.wait(waiting, timeout=LOOK_SECONDS)
        for future in waiting:
            future.cancel()

    async def publish_live(self, aggregate: SentimentAggregate) -> None:
        """Send a live score to whoever watches; it is not kept, the next one replaces it."""
        # While the broker is away longer than the client can buffer, there is nobody to tell.
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.publish(f"{LIVE_SUBJECT}.{aggregate.symbol}", aggregate.SerializeToString())

    async def lag(self, topic: Topic, durable: str) -> int:
        """Return how many messages the consumer has not finished: waiting plus delivered and not acknowledged."""
        info = await self.jetstream.consumer_info(topic.stream, durable)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def begun_ms(self, topic: Topic) -> int | None:
        """Return when the oldest message that the stream still has came in, epoch milliseconds; None without any."""
        state = (await self.jetstream.stream_info(topic.stream)).state
        if not state.messages:
            return None
        oldest = await self.jetstream.get_msg(topic.stream, state.first_seq)
        return None if oldest.time is None else round(oldest.time.timestamp() * 1000)

    async def read_back(
        self, topic: Topic, since: dt.datetime | None, through_sequence: int, subjects: Sequence[str] = ()
    ) -> AsyncGenerator[Batch, None]:
        """Yield batches of what the stream got since then, up to and with that sequence number, oldest first.

        ``since`` None is the beginning; ``subjects``: stored subjects to read, all of them when empty. Each message as
        its stored subject, its sequence number and its data. Raises BusUnavailableError when the broker stops in the
        midst of it, or loses patience with a caller that takes ten seconds over a batch.
        """
        if through_sequence <= 0:
            return
        inbox = self._client.new_inbox()
        # Pushed, not pulled: six times as fast.
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_TIME if since else api.DeliverPolicy.ALL,
            opt_start_time=since,
            filter_subjects=list(subjects) or [topic.stored_subjects],
            ack_policy=api.AckPolicy.NONE,
            deliver_subject=inbox,
            flow_control=True,
            idle_heartbeat=1.0,
            inactive_threshold=60.0,
            mem_storage=True,
        )
        try:
            async with listening(self._client, inbox) as pushed:
                info = await self.jetstream.add_consumer(topic.stream, config)
                try:
                    while info.num_pending and (batch := await pushed.read(READ_BACK_BATCH, through_sequence)):
                        yield batch
                finally:
                    with contextlib.suppress(*UNCONFIRMED):
                        await self.jetstream.delete_consumer(topic.stream, info.name)
        except UNCONFIRMED as error:
            raise BusUnavailableError(
                f"{topic.stream} cannot be read back ({type(error).__name__}: {error}): check the server of nats.url"
            ) from error


def _consumer(topic: Topic, durable: str, subjects: Sequence[str]) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        durable_name=durable,
        ack_policy=api.AckPolicy.EXPLICIT,
        # Endless here: the stage host dead-letters what keeps failing, JetStream would only fall silent.
        max_deliver=-1,
        filter_subjects=list(subjects) or [topic.stored_subjects],
    )
