"""State from the log: what a stage had finished before a restart is read back from its stream."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache

from sentimesh.bus import SCORED, Bus
from sentimesh.replicas import Replica


async def finished_mentions(
    bus: Bus, replica: Replica, floors: Mapping[int, int], since_ms: int | None, partitions: int
) -> AsyncIterator[Sequence[bytes]]:
    """Yield the aggregator's input since then that some replica has acknowledged, oldest first.

    ``floors``: the sequence through which each of the replica's partitions has been worked on.
    """
    subjects = replica.subjects(SCORED, partitions)
    async for batch in bus.read_back(SCORED, _time(since_ms), max(floors.values(), default=0), subjects):
        yield [data for subject, sequence, data in batch if sequence <= floors.get(_partition(subject), 0)]


@cache
def _partition(subject: str) -> int:
    return int(subject.removeprefix(SCORED.prefix).split(".")[1])


def _time(epoch_ms: int | None) -> dt.datetime | None:
    return None if epoch_ms is None else dt.datetime.fromtimestamp(epoch_ms / 1000, dt.UTC)
