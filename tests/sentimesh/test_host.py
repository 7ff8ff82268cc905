"""The stage host on a real nats-server, with a stage that does what its input says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import nats.js.errors
import pytest
import stamina
from nats.aio.msg import Msg
from pydantic import SecretStr

from sentimesh.bus import DEAD_LETTERS, NORMALIZED, RAW, REASON_HEADER, TOPICS, Bus, BusUnavailableError, Topic
from sentimesh.errors import StorageUnavailableError
from sentimesh.host import StageWorker, WorkerConfig
from sentimesh.pb.pipeline_pb2 import DeadLetter, RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject
from sentimesh.telemetry import Metrics, Tracing
from tests.sentimesh.test_bus import broker_with


class ObedientStage:
    """Forwards, drops, rejects or fails as the raw post's payload tells it."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.batches: list[int] = []
        self.outages = 1

    async def process(self, batch: Sequence[Delivery[RawPost]]) -> Sequence[Sequence[Outcome]]:
        outcomes: list[Sequence[Outcome]] = []
        self.batches.append(len(batch))
        for delivery in batch:
            order, _, name = delivery.message.payload.decode().partition(" ")
            if order == "crash":
                raise ZeroDivisionError("division by zero")
            if order == "outage" and self.outages:
                self.outages -= 1
                raise StorageUnavailableError("Redis does not answer at localhost: start it")
            post = SocialPost(post_id=f"twitter:{name}", symbol="BTC", text=order)
            match order:
                case "drop":
                    outcomes.append([Drop(post.post_id, "BTC", "spam")])
                case "reject":
                    outcomes.append([Reject("payload has no\nauthor")])
                case _:
                    outcomes.append([Forward(post, "BTC", post.post_id)])
        self.sequences += [delivery.sequence for delivery in batch]
        return outcomes

    async def tick(self) -> Sequence[Outcome]:
        return ()

    def session(self) -> ObedientStage:
        return ObedientStage()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(SecretStr(nats_url)) as bus:
        # A purged stream still knows its message ids: start with new ones.
        for topic in TOPICS:
            await bus.jetstream.delete_stream(topic.stream)
        await bus.ensure_streams()
        yield bus


async def send(bus: Bus, *payloads: str) -> None:
    for payload in payloads:
        await (await bus.publish("social.raw.twitter", RawPost(payload=payload.encode()), payload))


async def work(
    bus: Bus, stage: ObedientStage, metrics: Metrics | None = None, config: WorkerConfig | None = None
) -> None:
    """Run a worker until its stream is finished."""
    stop = asyncio.Event()
    worker = StageWorker(
        "ingest", stage, bus, RAW, RawPost,
        metrics=metrics or Metrics(), tracing=Tracing("test", None), config=config or WorkerConfig(batch_size=4),
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await asyncio.sleep(0)
        await idle(bus, worker)
        stop.set()


async def idle(bus: Bus, worker: StageWorker) -> None:
    async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=60, wait_max=0.05):
        with attempt:
            consumers = await bus.jetstream.consumers_info(worker.topic.stream)
            assert worker.durable in [consumer.name for consumer in consumers]
            assert await bus.lag(worker.topic, worker.durable) == 0


async def stored(bus: Bus, topic: Topic) -> list[bytes]:
    info = await bus.jetstream.stream_info(topic.stream)
    if not info.state.messages:
        return []
    return [
        (await bus.jetstream.get_msg(topic.stream, seq)).data or b""
        for seq in range(info.state.first_seq, info.state.last_seq + 1)
    ]


async def test_outcomes_go_where_they_belong_in_order(bus: Bus) -> None:
    await send(bus, "go 1", "drop 2", "go 3", "reject 4", "go 5", "go 6")
    metrics = Metrics()
    await work(bus, ObedientStage(), metrics)
    posts = [SocialPost.FromString(data).post_id for data in await stored(bus, NORMALIZED)]
    assert posts == ["twitter:1", "twitter:3", "twitter:5", "twitter:6"]
    [letter] = [DeadLetter.FromString(data) for data in await stored(bus, DEAD_LETTERS)]
    assert (letter.stage, letter.subject, letter.reason) == ("ingest", "social.raw.twitter", "payload has no\nauthor")
    assert metrics.registry.get_sample_value("social_posts_filtered_total", {"reason": "spam"}) == 1
    assert metrics.registry.get_sample_value("social_dead_letters_total", {"stage": "ingest"}) == 1


async def test_what_is_not_protobuf_becomes_a_dead_letter_with_its_reason(bus: Bus) -> None:
    await bus.jetstream.publish("social.raw.twitter", b"\xff\xff not protobuf")
    await send(bus, "go 1")
    await work(bus, ObedientStage())
    info = await bus.jetstream.stream_info(DEAD_LETTERS.stream)
    message = await bus.jetstream.get_msg(DEAD_LETTERS.stream, info.state.last_seq)
    assert message.subject == "social.dlq.ingest"
    assert message.headers is not None
    assert "not a com.verlumen.tradestream.social.RawPost" in message.headers[REASON_HEADER]
    assert DeadLetter.FromString(message.data or b"").payload == b"\xff\xff not protobuf"
    assert len(await stored(bus, NORMALIZED)) == 1


async def test_a_message_that_breaks_the_stage_is_singled_out_and_the_rest_goes_on(bus: Bus) -> None:
    await send(bus, "go 1", "crash 2", "go 3")
    await work(bus, ObedientStage())
    assert [SocialPost.FromString(d).post_id for d in await stored(bus, NORMALIZED)] == ["twitter:1", "twitter:3"]
    [letter] = [DeadLetter.FromString(data) for data in await stored(bus, DEAD_LETTERS)]
    assert letter.reason == "ingest failed on it: ZeroDivisionError: division by zero"


async def test_a_batch_waits_for_more_until_it_is_full(bus: Bus) -> None:
    stage = ObedientStage()
    await send(bus, "go 1")
    async with asyncio.TaskGroup() as group:
        group.create_task(work(bus, stage, config=WorkerConfig(batch_size=3, linger_seconds=10.0)))
        for payload in ("go 2", "go 3"):
            await asyncio.sleep(0.3)
            await send(bus, payload)
    assert stage.batches == [3]


async def test_a_batch_that_does_not_fill_goes_on_once_it_has_lingered(bus: Bus) -> None:
    stage = ObedientStage()
    await send(bus, "go 1")
    await work(bus, stage, config=WorkerConfig(batch_size=3, linger_seconds=0.05))
    assert stage.batches == [1]


async def test_an_outage_is_waited_for_and_loses_nothing(bus: Bus) -> None:
    await send(bus, "go 1", "outage 2")
    metrics = Metrics()
    await work(bus, ObedientStage(), metrics)
    assert len(await stored(bus, NORMALIZED)) == 2
    assert await stored(bus, DEAD_LETTERS) == []
    assert metrics.registry.get_sample_value("social_stage_errors_total", {"stage": "ingest"}) == 1


async def test_the_same_outcome_twice_is_stored_once(bus: Bus) -> None:
    await send(bus, "go 1")
    await work(bus, ObedientStage())
    await bus.jetstream.delete_consumer(RAW.stream, "ingest")
    stage = ObedientStage()
    await work(bus, stage)
    assert len(stage.sequences) == 1
    assert len(await stored(bus, NORMALIZED)) == 1


async def die_with(bus: Bus, count: int) -> None:
    """Do what a worker does that is killed: take the consumer, get messages, and never be heard of again."""
    await bus.take_consumer(RAW, "ingest", ack_wait_seconds=3600, max_ack_pending=1000)
    subscription = await bus.jetstream.pull_subscribe_bind("ingest", stream=RAW.stream)
    assert len(await subscription.fetch(count, timeout=30)) == count
    await subscription.unsubscribe()


async def test_what_a_killed_worker_left_comes_first_and_at_once_and_in_order(bus: Bus) -> None:
    await send(bus, *(f"go {n}" for n in range(10)))
    await die_with(bus, 7)
    stage = ObedientStage()
    # Half an hour of patience: what is not handed out again at once would keep the test waiting.
    await work(bus, stage, config=WorkerConfig(batch_size=4, ack_wait_seconds=1800))
    posts = [SocialPost.FromString(data).post_id for data in await stored(bus, NORMALIZED)]
    assert posts == [f"twitter:{n}" for n in range(10)]
    assert stage.sequences == sorted(stage.sequences)


async def test_a_message_that_kills_its_worker_over_and_over_is_a_dead_letter_and_no_other_is(bus: Bus) -> None:
    await send(bus, "go 1", "go 2", "go 3", "go 4")
    for _ in range(4):
        await die_with(bus, 4)
    # The fifth delivery is one too many for each of the four; the first is the one that the worker died of alone.
    await work(bus, ObedientStage(), config=WorkerConfig(batch_size=4, max_deliver=3))
    [letter] = [DeadLetter.FromString(data) for data in await stored(bus, DEAD_LETTERS)]
    assert RawPost.FromString(letter.payload).payload == b"go 1"
    assert letter.reason == "not finished in 4 deliveries"
    posts = [SocialPost.FromString(data).post_id for data in await stored(bus, NORMALIZED)]
    assert posts == ["twitter:2", "twitter:3", "twitter:4"]


async def test_suspects_get_one_more_chance_each_alone(bus: Bus) -> None:
    await send(bus, "go 1", "go 2")
    for _ in range(3):
        await die_with(bus, 2)
    await work(bus, ObedientStage(), config=WorkerConfig(batch_size=4, max_deliver=3))
    assert await stored(bus, DEAD_LETTERS) == []
    assert len(await stored(bus, NORMALIZED)) == 2


async def test_a_long_outage_is_no_reason_to_hand_a_message_to_another(bus: Bus) -> None:
    held = asyncio.Event()
    progress = 0

    async def seen(message: Msg) -> None:
        nonlocal progress
        progress += message.data == b"+WPI"
        if progress > 2:
            held.set()

    class Waiting(ObedientStage):
        async def process(self, batch: Sequence[Delivery[RawPost]]) -> Sequence[Sequence[Outcome]]:
            if not held.is_set():
                raise StorageUnavailableError("Redis does not answer at localhost: start it")
            return await super().process(batch)

    watching = await bus.client.subscribe("$JS.ACK.SOCIAL_RAW.ingest.>", cb=seen)
    await send(bus, "go 1")
    await work(bus, Waiting(), config=WorkerConfig(batch_size=4, ack_wait_seconds=1))
    await watching.unsubscribe()
    assert len(await stored(bus, NORMALIZED)) == 1
    assert await stored(bus, DEAD_LETTERS) == []


async def test_what_is_handed_out_again_while_it_is_worked_on_is_not_worked_on_twice(bus: Bus) -> None:
    """A stage that computes for so long that nothing else in its process can run, not even what keeps its messages."""

    class Computing(ObedientStage):
        async def process(self, batch: Sequence[Delivery[RawPost]]) -> Sequence[Sequence[Outcome]]:
            # The next batch is on its way by now, and its time runs as well.
            await asyncio.sleep(0.5)
            if not self.sequences:
                time.sleep(3)  # noqa: ASYNC251 - three times ack_wait
            return await super().process(batch)

    await send(bus, *(f"go {n}" for n in range(10)))
    stage = Computing()
    await work(bus, stage, config=WorkerConfig(batch_size=4, ack_wait_seconds=1))
    assert stage.sequences == list(range(stage.sequences[0], stage.sequences[0] + 10))
    assert len(await stored(bus, NORMALIZED)) == 10


async def test_a_broker_that_dies_while_a_worker_begins_is_waited_for(tmp_path: Path) -> None:
    stage, metrics, stop = ObedientStage(), Metrics(), asyncio.Event()

    def waited() -> float | None:
        return metrics.registry.get_sample_value("social_stage_errors_total", {"stage": "ingest"})

    async with broker_with(tmp_path, "") as broker, asyncio.TaskGroup() as group:
        broker.process.kill()
        await broker.process.wait()
        worker = StageWorker("ingest", stage, broker.bus, RAW, RawPost, metrics=metrics, tracing=Tracing("test", None))
        group.create_task(worker.run(stop))
        while not waited():  # noqa: ASYNC110 (a metric)
            await asyncio.sleep(0.01)
        await broker.start()
        await broker.bus.publish_confirmed([("social.raw.twitter", RawPost(payload=b"go 1"), "1", {})])
        while not stage.sequences:  # noqa: ASYNC110 (the stage of the test)
            await asyncio.sleep(0.01)
        stop.set()
    assert stage.sequences == [1]


async def test_a_consumer_that_the_broker_refuses_ends_the_worker(bus: Bus) -> None:
    refused = WorkerConfig(ack_wait_seconds=-1)
    worker = StageWorker(
        "ingest", ObedientStage(), bus, RAW, RawPost,
        metrics=Metrics(), tracing=Tracing("test", None), config=refused,
    )  # fmt: skip
    with pytest.raises(nats.js.errors.APIError):
        await worker.run(asyncio.Event())


async def test_streams_are_made_idempotently_with_their_retention(bus: Bus, nats_url: str) -> None:
    async with Bus(SecretStr(nats_url), retention_hours=1):
        info = await bus.jetstream.stream_info(RAW.stream)
        assert info.config.max_age == 3600
    await bus.ensure_streams()
    info = await bus.jetstream.stream_info(RAW.stream)
    assert info.config.max_age == 168 * 3600


async def test_a_broker_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(BusUnavailableError, match=r"nats\.url cannot be used"):
        async with Bus(SecretStr("nats://127.0.0.1:1")):
            pass
