"""JetStream: the streams between the stages, publishing with de-duplication, and reading back.

Subjects and stream names are public interface (ARCHITECTURE, one picture).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
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
from sentimesh.pb.pipeline_pb2 import DeadLetter, FilteredPost, RawPost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost

log = structlog.get_logger(__name__)

MESSAGE_ID_HEADER = "Nats-Msg-Id"
REASON_HEADER = "Sentimesh-Reason"
# How long the broker remembers message ids; a crashed stage is back long before.
DUPLICATE_WINDOW_SECONDS = 600.0
CONNECT_SECONDS = 10.0
CONFIRM_SECONDS = 30.0
UNCONFIRMED = (nats.errors.Error, OSError, TimeoutError)
# Subject, message, message id, further headers.
Publication = tuple[str, Message, str, Mapping[str, str]]
LIVE_SUBJECT = "social.live"


@dataclass(frozen=True, slots=True)
class Topic:
    """One JetStream stream and the prefix of its subjects."""

    stream: str
    prefix: str


RAW = Topic("SOCIAL_RAW", "social.raw")
NORMALIZED = Topic("SOCIAL_NORMALIZED", "social.normalized")
FILTERED = Topic("SOCIAL_FILTERED", "social.filtered")
SCORED = Topic("SOCIAL_SCORED", "social.scored")
AGGREGATES = Topic("SOCIAL_AGGREGATES", "social.aggregates")
VIRAL_ALERTS = Topic("SOCIAL_VIRAL_ALERTS", "social.viral-alerts")
DEAD_LETTERS = Topic("SOCIAL_DLQ", "social.dlq")
TOPICS = (RAW, NORMALIZED, FILTERED, SCORED, AGGREGATES, VIRAL_ALERTS, DEAD_LETTERS)

# Where a message of each type belongs.
TOPIC_OF: Mapping[type[Message], Topic] = {
    RawPost: RAW,
    SocialPost: NORMALIZED,
    FilteredPost: FILTERED,
    ScoredPost: SCORED,
    SentimentAggregate: AGGREGATES,
    ViralSpike: VIRAL_ALERTS,
    DeadLetter: DEAD_LETTERS,
}


class BusUnavailableError(SentimeshError):
    """The broker does not answer or does not do JetStream."""


class Bus:
    """A connection to the broker. Use as an async context manager."""

    def __init__(self, url: SecretStr, *, max_inflight: int = 256, retention_hours: int = 168) -> None:
        """``max_inflight``: unconfirmed publishes at a time; ``retention_hours``: maximum age of every stream."""
        self._url = url
        self._retention_seconds = retention_hours * 3600.0
        self._max_inflight = max_inflight
        self._client = Client()
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
                allow_reconnect=True,
                error_cb=self._on_error,
            )
            await asyncio.wait_for(connecting, CONNECT_SECONDS)
            self._jetstream = self._client.jetstream(timeout=10, publish_async_max_pending=self._max_inflight)
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
            await self._client.close()

    async def _on_error(self, error: Exception) -> None:
        log.warning("bus.error", error=type(error).__name__)

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""
        return self._client.is_connected

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
            )
            try:
                await self.jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:
                # It is there with other settings: the name decides, the settings follow.
                await self.jetstream.update_stream(config)

    async def subscribe(
        self, topic: Topic, durable: str, *, ack_wait_seconds: float, max_ack_pending: int
    ) -> JetStreamContext.PullSubscription:
        """Return the pull subscription of a durable consumer that all replicas of a stage share."""
        config = api.ConsumerConfig(
            durable_name=durable,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ack_wait_seconds,
            max_ack_pending=max_ack_pending,
            # Endless here: the stage host dead-letters what keeps failing, JetStream would only fall silent.
            max_deliver=-1,
            filter_subject=f"{topic.prefix}.*",
        )
        await self.jetstream.add_consumer(topic.stream, config)
        return await self.jetstream.pull_subscribe_bind(durable, stream=topic.stream)

    async def publish(
        self, subject: str, message: Message, message_id: str, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[api.PubAck]:
        """Send one message and return the future of its confirmation; waits while ``max_inflight`` are unconfirmed."""
        return await self.jetstream.publish_async(
            subject,
            message.SerializeToString(),
            wait_stall=60,
            headers={MESSAGE_ID_HEADER: message_id, **(headers or {})},
        )

    async def publish_confirmed(self, messages: Sequence[Publication]) -> None:
        """Publish in order and wait until each is stored, trying again what fails.

        Trying again cannot double anything: the broker drops an id that it has already.
        """
        rest = await self._publish_all(messages)
        if not rest:
            return
        async for attempt in stamina.retry_context(
            on=BusUnavailableError, attempts=None, timeout=None, wait_initial=0.1, wait_max=5.0
        ):
            with attempt:
                rest = await self._publish_all(rest)
                if rest:
                    raise BusUnavailableError(
                        f"NATS did not confirm {len(rest)} messages: check the server of nats.url"
                    )

    async def _publish_all(self, messages: Sequence[Publication]) -> list[Publication]:
        """Publish and wait; return those that were not confirmed."""
        sent: list[tuple[Publication, asyncio.Future[api.PubAck]]] = []
        failed: list[Publication] = []
        for message in messages:
            try:
                sent.append((message, await self.publish(*message)))
            except UNCONFIRMED:
                failed.append(message)
        if sent:
            await asyncio.wait([future for _, future in sent], timeout=CONFIRM_SECONDS)
        failed += [m for m, future in sent if not future.done() or future.cancelled() or future.exception()]
        return failed

    async def publish_live(self, aggregate: SentimentAggregate) -> None:
        """Send a live score to whoever watches; it is not kept, the next one replaces it."""
        # While the broker is away longer than the client can buffer, there is nobody to tell.
        with contextlib.suppress(nats.errors.Error):
            await self._client.publish(f"{LIVE_SUBJECT}.{aggregate.symbol}", aggregate.SerializeToString())

    async def lag(self, topic: Topic, durable: str) -> int:
        """Return how many messages the consumer has not finished: waiting plus delivered and not acknowledged."""
        info = await self.jetstream.consumer_info(topic.stream, durable)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def acknowledged_through(self, topic: Topic, durable: str) -> int:
        """Return the stream sequence up to which the consumer has acknowledged everything (0: nothing yet)."""
        try:
            info = await self.jetstream.consumer_info(topic.stream, durable)
        except nats.js.errors.NotFoundError:
            return 0
        return info.ack_floor.stream_seq if info.ack_floor else 0

    async def read_back(self, topic: Topic, since: dt.datetime, through_sequence: int) -> AsyncIterator[list[bytes]]:
        """Yield batches of what the stream got since then, up to and with that sequence number, oldest first."""
        if through_sequence <= 0:
            return
        info = await self.jetstream.add_consumer(
            topic.stream,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_TIME,
                opt_start_time=since,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=60.0,
                mem_storage=True,
            ),
        )
        subscription = await self.jetstream.pull_subscribe_bind(info.name, stream=topic.stream)
        try:
            remaining = (info.num_pending or 0) > 0
            while remaining:
                try:
                    messages = await subscription.fetch(1000, timeout=5)
                except TimeoutError:
                    return
                batch = [m.data for m in messages if m.metadata.sequence.stream <= through_sequence]
                if batch:
                    yield batch
                last = messages[-1].metadata
                remaining = last.sequence.stream < through_sequence and last.num_pending > 0
        finally:
            await self.jetstream.delete_consumer(topic.stream, info.name)
