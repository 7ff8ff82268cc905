"""What was seen before a post: the same words, and other posts of its author; counted for all filter replicas in Redis.

``social:copies:{fingerprint}``
    Posts of a text, in the order in which they were counted: sequence, time, hashes of id and author, 24 bytes each.
``social:copies:{platform}:{author_id}:{fingerprint}``
    Posts of a text by one broadcast channel, alike: remembered for longer, because its own words are all it says.
``social:frequency:{platform}:{author_id}``
    Posts of an author, alike.
``social:population:{hour}``
    Hash of posts and authors in an hour since the epoch, by event time.

Every answer is a function of what comes earlier in the stream, so a redelivered post is counted once and finds the
same. Of a flood the first posts and the newest are kept, so a count at :data:`TEXT_LIMIT` or :data:`AUTHOR_LIMIT`
halves now and then.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol, TypeVar

import redis.asyncio as redis

from filter_svc.outage import Outage

HOUR_MS = 3_600_000
DEFAULT_COPIES_MS = 24 * HOUR_MS
DEFAULT_CHANNEL_COPIES_MS = 30 * 24 * HOUR_MS
# A filter that was away for so long finds what came before; by the server's clock, and it only bounds memory.
AWAY_MS = 6 * HOUR_MS
TEXT_LIMIT, AUTHOR_LIMIT = 32, 128
# Of a flood's posts the first ones say of a redelivered one what it was told before.
FIRST_KEPT = 8
# Texts, and authors, that one process remembers for itself.
MEMORY_LIMIT = 200_000
# Fewer authors are no crowd whose habits say what is usual.
LEAST_AUTHORS = 30
NOBODY = bytes(4)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A post, its number in the stream, its time (epoch milliseconds) and its author, ``{platform}:{author_id}``.

    ``texts``: fingerprints under which it is counted, its own and that of what it is nearly a copy of; none for a
    post without words. ``author`` is empty where it is unknown. ``is_channel``: it is a broadcast channel.
    """

    post_id: str
    sequence: int
    timestamp_ms: int
    author: str
    texts: tuple[int, ...]
    is_channel: bool = False


@dataclass(frozen=True, slots=True)
class Sighted:
    """What was seen earlier in the stream.

    ``copies``: other posts of the same words within the time they are remembered (of everybody, or of the channel
    itself, whichever are more), ``copy_authors`` their authors,
    ``own_copies`` those of the post's own author. ``author_posts``: other posts of its author within an hour.
    ``population``: posts of a mean author in the hour before the post's, 0.0 while that is unknown.
    """

    copies: int = 0
    copy_authors: int = 0
    own_copies: int = 0
    author_posts: int = 0
    population: float = 0.0


NOTHING = Sighted()


class Sightings(Protocol):
    """Counts of posts."""

    async def count(self, posts: Sequence[Sighting], *, remember: bool = True) -> list[Sighted]:
        """Return what was seen before each post and, unless told not to, remember the posts.

        A post is counted once, however often it comes. Raises StorageUnavailableError.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    sequence: int
    time_ms: int
    post_id: str
    author: str


def _earlier(entries: Sequence[_Entry], post: _Entry, window_ms: int) -> tuple[bool, list[_Entry]]:
    """Say whether a post is among the entries, and return the others that come earlier in the stream."""
    known = next((entry for entry in entries if entry.post_id == post.post_id), None)
    # For its other symbols a post has later numbers: what counts is the first.
    before = post.sequence if known is None else known.sequence
    found = [
        entry
        for entry in entries
        if entry.sequence < before and entry.post_id != post.post_id and abs(post.time_ms - entry.time_ms) <= window_ms
    ]
    return known is not None, found


def _trimmed(entries: list[_Entry], now_ms: int, window_ms: int, limit: int) -> list[_Entry]:
    if len(entries) < limit:
        return entries
    live = [entry for entry in entries if entry.time_ms >= now_ms - window_ms]
    return live if len(live) < limit else live[:FIRST_KEPT] + live[-limit // 2 :]


_K = TypeVar("_K", bound=Hashable)


class _Kept(dict[_K, list[_Entry]]):
    """Posts by key; of too many keys those go first that were written longest ago."""

    def put(self, key: _K, entries: list[_Entry]) -> None:
        self.pop(key, None)
        self[key] = entries
        if len(self) > MEMORY_LIMIT:
            del self[next(iter(self))]


class MemorySightings:
    """What this process has seen, of the newest 200,000 texts and authors."""

    def __init__(self, copies_ms: int = DEFAULT_COPIES_MS, channel_copies_ms: int = DEFAULT_CHANNEL_COPIES_MS) -> None:
        """``copies_ms``: how long a text is remembered; ``channel_copies_ms``: a broadcast channel's own text."""
        self._copies_ms = copies_ms
        self._channel_copies_ms = channel_copies_ms
        # Of everybody, and of one channel.
        self._texts = _Kept[tuple[str, int]]()
        self._authors = _Kept[str]()
        # By hour: posts, authors.
        self._population: dict[int, tuple[int, int]] = {}

    async def count(self, posts: Sequence[Sighting], *, remember: bool = True) -> list[Sighted]:
        """Return what this process saw before each post."""
        return [self.count_one(post, remember) for post in posts]

    def count_one(self, post: Sighting, remember: bool = True) -> Sighted:
        """Return what this process saw before a post."""
        entry = _Entry(post.sequence, post.timestamp_ms, post.post_id, post.author)
        posts, authors = self._population.get(post.timestamp_ms // HOUR_MS - 1, (0, 0))
        copies: list[_Entry] = []
        windows = [("", self._copies_ms), *([(post.author, self._channel_copies_ms)] if post.is_channel else [])]
        for text in post.texts:
            for of_whom, window_ms in windows:
                entries = self._texts.get((of_whom, text), [])
                known, found = _earlier(entries, entry, window_ms)
                copies = max(copies, found, key=len)
                if remember and not known:
                    kept = _trimmed(entries, post.timestamp_ms, window_ms, TEXT_LIMIT)
                    self._texts.put((of_whom, text), [*kept, entry])
        return Sighted(
            copies=len(copies),
            copy_authors=len({found.author for found in copies}),
            own_copies=sum(found.author == post.author for found in copies) if post.author else 0,
            author_posts=self._of_author(entry, remember) if post.author else 0,
            population=posts / authors if authors >= LEAST_AUTHORS else 0.0,
        )

    def _of_author(self, entry: _Entry, remember: bool) -> int:
        entries = self._authors.get(entry.author, [])
        known, found = _earlier(entries, entry, HOUR_MS)
        if remember and not known:
            hour = entry.time_ms // HOUR_MS
            is_first = all(each.time_ms // HOUR_MS != hour for each in entries)
            posts, authors = self._population.get(hour, (0, 0))
            self._population[hour] = posts + 1, authors + is_first
            self._authors.put(entry.author, [*_trimmed(entries, entry.time_ms, HOUR_MS, AUTHOR_LIMIT), entry])
        return len(found)


class RedisSightings:
    """Counts that all replicas share, one round trip a batch.

    While Redis is away, and once that has been waited for, nothing is known of earlier posts but what this process has
    seen since.
    """

    def __init__(
        self,
        client: redis.Redis,
        outage: Outage,
        copies_ms: int = DEFAULT_COPIES_MS,
        channel_copies_ms: int = DEFAULT_CHANNEL_COPIES_MS,
    ) -> None:
        """``copies_ms``: how long a text is remembered; ``channel_copies_ms``: a broadcast channel's own text."""
        self._script = client.register_script(files("filter_svc").joinpath("sightings.lua").read_text())
        self._outage = outage
        self._windows = copies_ms, channel_copies_ms
        self._settings = (copies_ms, channel_copies_ms, HOUR_MS, TEXT_LIMIT, AUTHOR_LIMIT, FIRST_KEPT, AWAY_MS)
        self._stand_in: MemorySightings | None = None

    async def count(self, posts: Sequence[Sighting], *, remember: bool = True) -> list[Sighted]:
        """Return what all replicas saw before each post. Raises StorageUnavailableError."""
        if not posts:
            return []
        # One argument: of many each would cost more than its post.
        packed = b"".join(map(_packed, posts))

        async def ask() -> list[Sighted]:
            answers = await self._script(args=[int(remember), *self._settings, packed])
            self._stand_in = None
            return [
                Sighted(copies, authors, own, written, posts / of if of >= LEAST_AUTHORS else 0.0)
                for copies, authors, own, written, posts, of in zip(*[iter(answers)] * 6, strict=True)
            ]

        def stand_in() -> list[Sighted]:
            self._stand_in = self._stand_in or MemorySightings(*self._windows)
            return [self._stand_in.count_one(post, remember) for post in posts]

        return await self._outage.ask("sightings", ask, stand_in)


def _short(name: bytes) -> bytes:
    # Equal by chance in a list of at most 128: once in thirty million.
    return hashlib.blake2b(name, digest_size=4).digest()


def _packed(post: Sighting) -> bytes:
    author = post.author.encode()
    # Lua's numbers are doubles: exact to 2**53, enough for a sequence and a time.
    return (
        struct.pack(
            f">dd4s4sBBH{len(post.texts)}Q",
            post.sequence,
            post.timestamp_ms,
            _short(post.post_id.encode()),
            _short(author) if author else NOBODY,
            post.is_channel,
            len(post.texts),
            len(author),
            *post.texts,
        )
        + author
    )
