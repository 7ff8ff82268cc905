"""Which post a text was seen in first: fingerprints of the last hour, shared by all filter replicas through Redis.

Layout, under the specification's ``social:simhash:{hash_prefix}``. A fingerprint's 64 bits are cut into ``max_distance
+ 1`` blocks; two fingerprints that differ in at most ``max_distance`` bits agree in at least one of them.

``social:simhash:{block}:{bits}``
    Sorted set of the fingerprints (8 bytes, big-endian) with these bits in this block, by the newest post's time.
``social:simhash:{fingerprint}``
    Its posts, earliest in the stream first (MessagePack: sequence, time, id, and so on).
``social:simhash:written:{process}``
    Number of the last batch of one filter process. A number that went back tells that Redis lost what came after.
"""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple, Protocol

import redis.asyncio as redis
from redis.exceptions import RedisError

from sentimesh.errors import StorageUnavailableError
from sentimesh.native import NearDuplicateIndex

DEFAULT_DISTANCE = 3
DEFAULT_TTL_MS = 3_600_000
# A filter that was away for so long finds what came before; by the server's clock, and it only bounds memory.
AWAY_MS = 6 * 3_600_000
# Posts may be so much older than those that came before them and still meet all that is within their hour.
LATE_SHARE = 1 / 6
# Of posts of one fingerprint two are kept for each such part of the time to live.
CELL_SHARE = 1 / 32
# An outage shorter than this is waited for, because an answer without Redis may be another one.
PATIENCE_SECONDS = 30.0
PROBE_SECONDS = 5.0
PROBE_TIMEOUT_SECONDS = 1.0
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
    """What a post is a copy of."""

    post_id: str
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
        self._index = NearDuplicateIndex(max_distance, ttl_ms)

    async def originals(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return for each post the one that came first, or None, and remember the posts."""
        return self.originals_now(posts)

    def originals_now(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return the same without a coroutine."""
        found = self._index.check_and_insert(
            [post.post_id for post in posts],
            [post.fingerprint for post in posts],
            [post.timestamp_ms for post in posts],
        )
        return [Original(*original) if original else None for original in found]


class _Journal:
    """The posts of the last batches, numbered, as they are written: what Redis lost or never got is found here."""

    def __init__(self, limit: int) -> None:
        self.last = 0
        self._batches: deque[tuple[int, Sequence[bytes]]] = deque()
        self._posts = 0
        self._limit = limit

    def append(self, posts: Sequence[bytes]) -> None:
        self.last += 1
        self._batches.append((self.last, posts))
        self._posts += len(posts)
        while self._posts > self._limit:
            self._posts -= len(self._batches.popleft()[1])

    def after(self, number: int) -> list[tuple[int, Sequence[bytes]]]:
        """Return the batches after that number, oldest first."""
        found: list[tuple[int, Sequence[bytes]]] = []
        for batch in reversed(self._batches):
            if batch[0] <= number:
                break
            found.append(batch)
        return found[::-1]


class RedisNearDuplicates:
    """Fingerprints that all replicas share.

    The answer is a function of the order of the stream: the earliest post of a smaller number and another id within
    ``max_distance`` bits, at most ``ttl_ms`` away in event time. So a redelivered post, another replica and a restart
    find the same. One thing is rounded: of three or more posts of the same fingerprint within 1/32 of ``ttl_ms`` the
    first two stand for all, so that a flood of copies costs no more than they do.

    While Redis is away this raises StorageUnavailableError for ``patience_seconds``; then what this process itself has
    seen answers, and ``on_degraded`` is told how many posts that was. They are written when Redis is back.

    The script names its keys itself, so the server is one instance (or one shard), not a Redis Cluster.
    """

    def __init__(
        self,
        client: redis.Redis,
        max_distance: int = DEFAULT_DISTANCE,
        ttl_ms: int = DEFAULT_TTL_MS,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_degraded: Callable[[int], None] = lambda _posts: None,
        held_posts: int = HELD_POSTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``held_posts``: how many can be written again; ``clock``: seconds."""
        self._client = client
        self._script = client.register_script(files("filter_svc").joinpath("near_duplicates.lua").read_text())
        life_ms = ttl_ms + AWAY_MS
        self._settings: list[int | bytes] = [
            max_distance,
            ttl_ms,
            ttl_ms + int(ttl_ms * LATE_SHARE),
            max(1, int(ttl_ms * CELL_SHARE)),
            life_ms,
            life_ms - AWAY_MS // 2,
            b"".join(_masks(max_distance + 1)),
        ]
        self._written_key = f"social:simhash:written:{uuid.uuid4().hex}"
        self._stand_in = MemoryNearDuplicates(max_distance, ttl_ms)
        self._journal = _Journal(held_posts)
        self._written = 0
        self._patience_seconds = patience_seconds
        self._on_degraded = on_degraded
        self._clock = clock
        self._away_since: float | None = None
        self._degraded = False
        self._next_probe = 0.0

    async def originals(self, posts: Sequence[Seen]) -> list[Original | None]:
        """Return for each post the earliest other one that it is a copy of, or None, in one round trip.

        Raises StorageUnavailableError.
        """
        if not posts:
            return []
        own = self._stand_in.originals_now(posts)
        packed = [_packed(post) for post in posts]
        try:
            await self._probe()
            answers = await self._ask(packed)
        except (RedisError, OSError) as error:
            self._away(error)
            self._journal.append(packed)
            self._on_degraded(len(posts))
            return own
        self._away_since = None
        self._degraded = False
        self._journal.append(packed)
        self._written = self._journal.last
        return answers

    def _away(self, error: Exception) -> None:
        """Raise StorageUnavailableError as long as the outage is young."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < self._patience_seconds:
            message = f"Redis does not answer ({type(error).__name__}: {error}): see that it runs at the configured URL"
            raise StorageUnavailableError(message) from error
        if not self._degraded or now >= self._next_probe:
            self._next_probe = now + PROBE_SECONDS
        self._degraded = True

    async def _probe(self) -> None:
        """While the stand-in answers, ask Redis only now and then, and briefly."""
        if not self._degraded:
            return
        if self._clock() < self._next_probe:
            raise ConnectionError("not asked again yet")
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            await self._client.ping()

    async def _ask(self, packed: Sequence[bytes]) -> list[Original | None]:
        """Write what Redis does not have, then this batch, and return its answers."""
        for _ in range(ROUNDS):
            batches = [(number, batch, 0) for number, batch in self._journal.after(self._written)]
            for number, batch, asked in [*batches, (self._journal.last + 1, packed, len(packed))]:
                known, *answers = await self._run(number, batch, asked)
                if int(known) < self._written:
                    self._written = int(known)
                    break
                self._written = min(number, self._journal.last)
            else:
                return [
                    Original(answer[8:].decode(), int.from_bytes(answer[:8])) if answer else None for answer in answers
                ]
        raise ConnectionError("it loses what was written a moment ago")

    async def _run(self, number: int, packed: Sequence[bytes], asked: int) -> list[bytes]:
        answers: list[bytes] = await self._script(args=[self._written_key, number, asked, *self._settings, *packed])
        return answers


def _original(answer: bytes) -> Original | None:
    return Original(answer[8:].decode(), int.from_bytes(answer[:8])) if answer else None


def _masks(blocks: int) -> Iterator[bytes]:
    """Yield each block's bits, the lowest block first."""
    for block in range(blocks):
        first, end = 64 * block // blocks, 64 * (block + 1) // blocks
        yield ((1 << end) - (1 << first)).to_bytes(8, "big")


def _packed(post: Seen) -> bytes:
    # Lua's numbers are doubles: exact to 2**53, enough for a sequence and a time, and not for a fingerprint.
    return struct.pack(">Qdd", post.fingerprint, post.sequence, post.timestamp_ms) + post.post_id.encode()
