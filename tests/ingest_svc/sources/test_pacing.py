from __future__ import annotations

import pytest

from ingest_svc.sources.pacing import Pacer


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 50.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


async def test_event_time_runs_at_the_given_multiple_of_the_clock() -> None:
    clock = Clock()
    pacer = Pacer(2.0, clock.monotonic, clock.sleep)
    for event_time_ms in (10_000, 14_000, 14_000, 15_000):
        await pacer.wait(event_time_ms)
    assert clock.slept == pytest.approx([2.0, 0.5])


async def test_who_is_late_or_unpaced_does_not_wait() -> None:
    clock = Clock()
    pacer = Pacer(1.0, clock.monotonic, clock.sleep)
    await pacer.wait(1_000)
    clock.seconds += 10
    await pacer.wait(5_000)
    unpaced = Pacer(None, clock.monotonic, clock.sleep)
    await unpaced.wait(1_000)
    await unpaced.wait(10_000_000)
    assert clock.slept == []


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_speed_is_positive(speed: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Pacer(speed)
