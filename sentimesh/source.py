"""What a source is: something that yields platform payloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from sentimesh.pb.pipeline_pb2 import RawPost


@dataclass(frozen=True, slots=True)
class SourcePost:
    """A raw post on its way to ``social.raw.<platform>``.

    ``identity`` becomes the ``Nats-Msg-Id``: handing over the same one twice counts once.
    ``event_time_ms`` is the platform's creation time, for pacing.
    """

    raw: RawPost
    identity: str
    event_time_ms: int


class Source(Protocol):
    """One platform, file or generator."""

    @property
    def name(self) -> str:
        """Return the word for logs and metrics."""
        ...

    def posts(self) -> AsyncIterator[SourcePost]:
        """Yield posts until there are no more (files) or for ever (platforms)."""
        ...
