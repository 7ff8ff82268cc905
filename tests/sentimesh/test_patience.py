from __future__ import annotations

import asyncio

import pytest

from sentimesh.patience import Patience


async def test_what_is_in_time_is_returned_or_raised() -> None:
    async def read() -> int:
        return 7

    async def fail() -> int:
        raise ZeroDivisionError

    assert await Patience(60).wait(read()) == 7
    with pytest.raises(ZeroDivisionError):
        await Patience(60).wait(fail())


@pytest.mark.parametrize("outcome", [None, OSError("connection lost")])
async def test_a_read_that_will_not_be_cancelled_is_not_waited_for(outcome: OSError | None) -> None:
    released, ended = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await released.wait()
            if outcome is not None:
                raise outcome from None
            raise
        finally:
            ended.set()

    patience = Patience(0.01)
    with pytest.raises(TimeoutError):
        await patience.wait(stubborn())
    assert not ended.is_set()
    released.set()
    await ended.wait()


async def test_whoever_stops_waiting_stops_the_read() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = asyncio.create_task(Patience(60).wait(read()))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await cancelled.wait()
