"""What a stage is: batches of messages in, outcomes out, nothing of the bus in it.

A stage package implements :class:`Stage`; :mod:`sentimesh.host` gives it a JetStream worker, a gRPC
server, metrics and traces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Forward:
    """A message for the next stage.

    ``symbol`` is the last token of its subject. ``identity`` is what makes it this message and no other
    (a post id, a window's start and revision): with the symbol and the stage it becomes ``Nats-Msg-Id``.
    """

    message: Message
    symbol: str
    identity: str


@dataclass(frozen=True, slots=True)
class Drop:
    """A post that goes no further; ``reason`` is one word and becomes a metric label.

    ``symbol`` is empty when none was found; ``credibility_score`` (0.0 to 1.0) is None when not computed.
    ``record``: what is kept of it, in the stream of its type.
    """

    post_id: str
    symbol: str
    reason: str
    credibility_score: float | None = None
    record: Message | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """An input no stage can use; it goes to the dead-letter stream with ``reason``, a sentence."""

    reason: str


Outcome = Forward | Drop | Reject

In_co = TypeVar("In_co", bound=Message, covariant=True)
In_contra = TypeVar("In_contra", bound=Message, contravariant=True)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[In_co]):
    """One input and its number in the stream it came from.

    A redelivered message has the number of its first delivery, so a stage that remembers what it has seen
    can tell a redelivery (same ``sequence``) from a duplicate (another one).
    """

    message: In_co
    sequence: int


class Stage(Protocol[In_contra]):
    """One room of the pipeline."""

    async def process(self, batch: Sequence[Delivery[In_contra]]) -> Sequence[Sequence[Outcome]]:
        """Return the outcomes of each input, in order and as many as there are inputs.

        An exception means that nothing of the batch was done and that all of it is to be tried again.
        """
        ...

    async def tick(self) -> Sequence[Outcome]:
        """Return what is due by the clock alone; called about once a second."""
        ...

    def session(self) -> Stage[In_contra]:
        """Return a stage of the same settings with empty state of its own, for one gRPC stream."""
        ...


class Restorable(Protocol):
    """A stage whose state is a function of its stream: after a restart it is read from there."""

    async def restore(self, batches: AsyncIterator[Sequence[bytes]]) -> Sequence[Outcome]:
        """Take what was finished before, oldest first; return outcomes that may not have been published yet."""
        ...
