"""Who of several aggregators works on which symbols, and where it goes on.

The stream of scored posts is partitioned by symbol; replica *i* of *n* owns the partitions *p* with *p* mod *n* = *i*
and has a durable consumer of its own for them. When *n* changes, each replica goes on where the one that had the
partition before it stopped, whatever their number was then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nats.js import api

from sentimesh.bus import Bus, Topic, partition_of

STAGE = "aggregator"
_DURABLE = re.compile(rf"{STAGE}-(\d+)-of-(\d+)")


@dataclass(frozen=True, slots=True)
class Replica:
    """Number ``index`` (from 0) of ``count``."""

    index: int = 0
    count: int = 1

    @property
    def durable(self) -> str:
        """Name of its consumer."""
        return STAGE if self.count == 1 else f"{STAGE}-{self.index}-of-{self.count}"

    def partitions(self, partitions: int) -> list[int]:
        """Return those it owns."""
        return list(range(self.index, partitions, self.count))

    def symbols(self, symbols: Sequence[str], partitions: int) -> list[str]:
        """Return those of the symbols that it owns."""
        return [symbol for symbol in symbols if partition_of(symbol, partitions) % self.count == self.index]

    def subjects(self, topic: Topic, partitions: int) -> list[str]:
        """Return the stored subjects of its partitions."""
        if self.count == 1:
            return [topic.stored_subjects]
        return [f"{topic.prefix}.{partition}.*" for partition in self.partitions(partitions)]


def _replica(durable: str) -> Replica | None:
    if durable == STAGE:
        return Replica()
    match = _DURABLE.fullmatch(durable)
    return Replica(int(match[1]), int(match[2])) if match else None


async def take_over(bus: Bus, topic: Topic, replica: Replica, partitions: int) -> Mapping[int, int]:
    """Make the replica's consumer; return the sequence through which each of its partitions has been worked on.

    The sequence is 0 where nothing has been. Consumers of another count are removed once every replica of this count
    has its own.
    """
    through = await _worked_through(bus, topic)
    floors = {
        partition: max((seq for other, seq in through.items() if partition % other.count == other.index), default=0)
        for partition in replica.partitions(partitions)
    }
    first = min(floors.values(), default=0)
    if replica in through and through[replica] < first:
        # Others have come further since this one was last used.
        await bus.jetstream.delete_consumer(topic.stream, replica.durable)
    await bus.ensure_consumer(topic, replica.durable, replica.subjects(topic, partitions), first)
    known = await _worked_through(bus, topic)
    if sum(other.count == replica.count for other in known) == replica.count:
        for stale in (other for other in known if other.count != replica.count):
            await bus.jetstream.delete_consumer(topic.stream, stale.durable)
    return floors


async def _worked_through(bus: Bus, topic: Topic) -> dict[Replica, int]:
    consumers: Sequence[api.ConsumerInfo] = await bus.jetstream.consumers_info(topic.stream)
    return {
        found: consumer.ack_floor.stream_seq if consumer.ack_floor else 0
        for consumer in consumers
        if (found := _replica(consumer.name)) is not None
    }
