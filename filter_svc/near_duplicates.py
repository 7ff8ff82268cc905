"""Which post a text was seen in first: fingerprints of the last hour, shared by all filter replicas through Redis.

A fingerprint's 64 bits are cut into ``max_distance + 1`` blocks; two fingerprints that differ in at most
``max_distance`` bits agree in at least one of them. Layout, under the specification's ``social:simhash:{hash_prefix}``:

``social:simhash:{block}:{digit}:{slot}``
    Posts of one time to live (an hour), counted since the epoch by event time, whose fingerprints have this first
    hexadecimal digit in this block, as they came: for each batch the number of its arrival (6 bytes) and of its posts
    (4 bytes), for each post fingerprint (8 bytes), sequence (6), time (6) and hash of the id (8).
``social:simhash:arrivals``
    Number of batches that came.
``social:simhash:written:{process}``
    Number of the last batch of one filter process. A number that went back tells that Redis lost what came after.

Each process has a table of what it has read, by all of a block's bits, and reads only what is new in the buckets that
its posts belong in.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple, Protocol

import redis.asyncio as redis

from filter_svc.outage import Outage
from sentimesh.native import NearDuplicateBatch, NearDuplicateTable

DEFAULT_DISTANCE = 3
DEFAULT_TTL_MS = 3_600_000
# A filter that was away for so long finds what came before; by the server's clock, and it only bounds memory.
AWAY_MS = 6 * 3_600_000
# Posts that are written again when Redis lost them: an hour of the 10,000 a minute that the system is made for.
HELD_POSTS = 600_000
# A server that loses what was written a moment ago, over and over, is not waited for.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """A post's fingerprint, its number in the stream and its time (epoch milliseconds)."""

    post_id: str
    fingerprint: int
    sequence: int
    timestamp_ms: int


class Original(NamedTuple):
    """The earliest post that another one is a copy of."""

    fingerprint: int


class NearDuplicates(Protocol):
    """Fingerprints of the last hour, by event time."""

    async def originals(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return for each post the earliest other one that it is a copy of, or None, and remember the posts.

        Asking again gives the same answers. Raises StorageUnavailableError.
        """
        ...


class MemoryNearDuplicates:
    """What this process has seen, in the order in which it came."""

    def __init__(self, max_distance: int = DEFAULT_DISTANCE, ttl_ms: int = DEFAULT_TTL_MS) -> None:
        """``max_distance`` in bits, 0 to 7."""
        self._table = NearDuplicateTable(max_distance, ttl_ms)

    async def originals(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return for each post the one that came first, or None, and remember the posts."""
        batch = _batch(self._table, posts)
        self._table.remember(batch)
        return _answers(self._table, batch)


def _batch(table: NearDuplicateTable, posts: Sequence[Seen]) -> NearDuplicateBatch:
    return table.batch(
        [post.post_id for post in posts],
        [post.fingerprint for post in posts],
        [post.sequence for post in posts],
        [post.timestamp_ms for post in posts],
    )


def _answers(table: NearDuplicateTable, batch: NearDuplicateBatch) -> list[Original | None]:
    return [None if found is None else Original(found) for found in table.answers(batch)]


class _Write(NamedTuple):
    """What the script is told to write of a batch, with the number of posts."""

    request: bytes
    posts: int


class _Journal:
    """What the last batches wrote, numbered: what Redis lost or never got is found here."""

    def __init__(self, limit: int) -> None:
        self.last = 0
        self._writes: deque[tuple[int, _Write]] = deque()
        self._posts = 0
        self._limit = limit

    def append(self, write: _Write) -> None:
        self.last += 1
        self._writes.append((self.last, write))
        self._posts += write.posts
        while self._posts > self._limit:
            self._posts -= self._writes.popleft()[1].posts

    def after(self, number: int) -> list[tuple[int, bytes]]:
        """Return the requests after that number, oldest first."""
        found: list[tuple[int, bytes]] = []
        for at, write in reversed(self._writes):
            if at <= number:
                break
            found.append((at, write.request))
        return found[::-1]


class RedisNearDuplicates:
    """Fingerprints that all replicas share.

    A post is a copy of posts of other ids within ``max_distance`` bits and at most ``ttl_ms`` away in event time that
    came to Redis before it did, also when it comes again, to another replica or after a restart. One thing is
    rounded: of three or more posts of the same fingerprint in a cell of 1/32 of ``ttl_ms`` the first two stand for
    all, so that a flood of copies costs no more than they do.

    While Redis is away this raises StorageUnavailableError for as long as ``outage`` is patient; then what this process
    has seen and read answers, and ``on_degraded`` is told how many posts that was. They are written when Redis is back.

    The script names its keys itself, so the server is one instance (or one shard), not a Redis Cluster.
    """

    def __init__(
        self,
        client: redis.Redis,
        max_distance: int = DEFAULT_DISTANCE,
        ttl_ms: int = DEFAULT_TTL_MS,
        outage: Outage | None = None,
        *,
        on_degraded: Callable[[int], None] = lambda _posts: None,
        held_posts: int = HELD_POSTS,
    ) -> None:
        """``outage``: what others know of this Redis; ``held_posts``: how many can be written again."""
        self._script = client.register_script(files("filter_svc").joinpath("near_duplicates.lua").read_text())
        self._table = NearDuplicateTable(max_distance, ttl_ms)
        self._life_ms = AWAY_MS + 2 * ttl_ms
        self._written_key = f"social:simhash:written:{uuid.uuid4().hex}"
        self._journal = _Journal(held_posts)
        self._written = 0
        self._outage = outage or Outage()
        self._on_degraded = on_degraded

    async def originals(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return for each post the earliest other one that it is a copy of, or None, in one round trip.

        Raises StorageUnavailableError.
        """
        batch = _batch(self._table, posts)
        write = _Write(batch.writes, len(batch))

        async def ask() -> None:
            await self._ask(write.request, batch)
            self._journal.append(write)
            self._written = self._journal.last

        def stand_in() -> None:
            self._table.remember(batch)
            self._journal.append(write)
            self._on_degraded(len(posts))

        # Of a flood all may be known.
        if write.posts:
            await self._outage.ask("near_duplicates", ask, stand_in)
        return _answers(self._table, batch)

    async def _ask(self, request: bytes, batch: NearDuplicateBatch) -> None:
        """Write what Redis does not have, then this batch, and read what this process does not have."""
        for _ in range(ROUNDS):
            reads = self._table.reads(batch)
            missing = [(number, earlier, b"") for number, earlier in self._journal.after(self._written)]
            for number, writes, read in [*missing, (self._journal.last + 1, request, reads.request)]:
                known, *buckets = await self._script(
                    args=[self._written_key, self._written, number, writes, read, self._life_ms]
                )
                if int(known) < self._written:
                    self._written = int(known)
                    self._table.forget()
                    break
                self._written = min(number, self._journal.last)
            else:
                try:
                    self._table.read(reads, buckets)
                except ValueError:
                    # A bucket went and came again, so this process was about to go on in its middle.
                    self._table.forget()
                else:
                    return
        raise ConnectionError("it loses what was written a moment ago")
