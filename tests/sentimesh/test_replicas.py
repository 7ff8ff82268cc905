"""Who of several aggregators has which symbols, on a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from sentimesh.bus import SCORED, Bus, partition_of
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.replicas import Replica, take_over
from sentimesh.settings import DEFAULT_SYMBOLS

PARTITIONS = 20


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(SecretStr(nats_url), partitions=PARTITIONS) as bus:
        await bus.jetstream.delete_stream(SCORED.stream)
        await bus.ensure_streams()
        yield bus


async def send(bus: Bus, *symbols: str) -> None:
    for symbol in symbols:
        post = ScoredPost(post=SocialPost(post_id="twitter:1", symbol=symbol))
        await (await bus.publish(f"social.scored.{symbol}", post, f"{symbol}/{await last(bus)}"))


async def last(bus: Bus) -> int:
    return (await bus.jetstream.stream_info(SCORED.stream)).state.last_seq


async def finish(bus: Bus, replica: Replica) -> list[str]:
    """Acknowledge all that the replica has to do; return the symbols."""
    subjects = replica.subjects(SCORED, PARTITIONS)
    await bus.take_consumer(SCORED, replica.durable, ack_wait_seconds=60, max_ack_pending=1000, subjects=subjects)
    subscription = await bus.jetstream.pull_subscribe_bind(replica.durable, stream=SCORED.stream)
    symbols = []
    while await bus.lag(SCORED, replica.durable):
        for message in await subscription.fetch(100, timeout=5):
            symbols.append(message.subject.rsplit(".", 1)[1])
            await message.ack_sync(5)
    return symbols


async def consumers(bus: Bus) -> set[str]:
    return {consumer.name for consumer in await bus.jetstream.consumers_info(SCORED.stream)}


async def test_the_broker_puts_a_symbol_where_we_say(bus: Bus) -> None:
    symbols = [*DEFAULT_SYMBOLS, "1INCH", "A", "Z" * 20]
    await send(bus, *symbols)
    for number, symbol in enumerate(symbols, start=1):
        stored = await bus.jetstream.get_msg(SCORED.stream, number)
        assert stored.subject == f"social.scored.{partition_of(symbol, PARTITIONS)}.{symbol}"
        assert SCORED.published_subject(stored.subject) == f"social.scored.{symbol}"


@given(st.integers(1, 20), st.lists(st.from_regex(r"[A-Z0-9]{1,20}", fullmatch=True), unique=True))
def test_every_symbol_has_exactly_one_replica(count: int, symbols: list[str]) -> None:
    replicas = [Replica(index, count) for index in range(count)]
    assert sorted(s for replica in replicas for s in replica.symbols(symbols, PARTITIONS)) == sorted(symbols)
    assert sorted(p for replica in replicas for p in replica.partitions(PARTITIONS)) == list(range(PARTITIONS))


async def test_more_replicas_go_on_where_the_one_stopped_and_the_other_way_round(bus: Bus) -> None:
    one, two = Replica(), [Replica(0, 2), Replica(1, 2)]
    await take_over(bus, SCORED, one, PARTITIONS)
    await send(bus, "BTC", "ETH", "SOL")
    assert await finish(bus, one) == ["BTC", "ETH", "SOL"]
    await send(bus, *DEFAULT_SYMBOLS)
    # The first of two alone must not take the place away that the second is still to go on from.
    assert set((await take_over(bus, SCORED, two[0], PARTITIONS)).values()) == {3}
    assert await consumers(bus) == {"aggregator", "aggregator-0-of-2"}
    assert set((await take_over(bus, SCORED, two[1], PARTITIONS)).values()) == {3}
    assert await consumers(bus) == {"aggregator-0-of-2", "aggregator-1-of-2"}
    found = [await finish(bus, replica) for replica in two]
    assert sorted(found[0] + found[1]) == sorted(DEFAULT_SYMBOLS)
    assert found[0] == two[0].symbols(DEFAULT_SYMBOLS, PARTITIONS)
    # One more post each, and only one of the two comes to its own.
    await send(bus, "BTC", "ETH", "SOL", "XRP", "ADA", "DOGE")
    done = await finish(bus, two[0])
    floors = await take_over(bus, SCORED, one, PARTITIONS)
    assert await consumers(bus) == {"aggregator"}
    # It goes on from where the slower one was; what the faster one did is told by the floors.
    again = await finish(bus, one)
    assert set(again) >= {"BTC", "ETH", "SOL", "XRP", "ADA", "DOGE"} - set(done)
    assert all(floors[partition_of(symbol, PARTITIONS)] > min(floors.values()) for symbol in done)
