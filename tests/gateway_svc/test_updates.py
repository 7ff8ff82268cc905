import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway_svc.updates import UpdateBuffer
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate


def update(symbol: str, at: int) -> SentimentAggregate:
    return SentimentAggregate(symbol=symbol, updated_at_ms=at)


async def test_updates_come_out_in_order_and_end_with_their_source() -> None:
    async def source() -> AsyncIterator[SentimentAggregate]:
        for at in range(5):
            yield update("BTC", at)

    buffer = UpdateBuffer()
    await buffer.fill(source())
    assert [u.updated_at_ms async for u in buffer.drain()] == [0, 1, 2, 3, 4]


async def test_a_slow_taker_finds_the_newest_of_each_symbol_and_no_more_than_the_limit() -> None:
    buffer = UpdateBuffer(limit=10)
    for at in range(1000):
        buffer.put(update("BTC" if at % 2 else "ETH", at))
        assert len(buffer) <= 10

    async def nothing() -> AsyncIterator[SentimentAggregate]:
        return
        yield

    await buffer.fill(nothing())
    taken = [u async for u in buffer.drain()]
    newest = {u.symbol: u.updated_at_ms for u in taken}
    assert newest == {"ETH": 998, "BTC": 999}


async def test_a_failure_of_the_source_reaches_the_taker_after_what_came_before_it() -> None:
    async def source() -> AsyncIterator[SentimentAggregate]:
        yield update("BTC", 1)
        raise StorageUnavailableError("the broker is away")

    buffer = UpdateBuffer()
    await buffer.fill(source())
    updates = buffer.drain()
    assert (await anext(updates)).updated_at_ms == 1
    with pytest.raises(StorageUnavailableError, match="the broker is away"):
        await anext(updates)


async def test_taking_waits_for_updates_that_come_later() -> None:
    buffer = UpdateBuffer()
    updates = buffer.drain()
    waiting = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.put(update("SOL", 7))
    assert (await waiting).symbol == "SOL"
    await updates.aclose()
