"""The table against a scan over everything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import NearDuplicateTable


@dataclass(frozen=True)
class Post:
    post_id: str
    fingerprint: int
    timestamp_ms: int


@dataclass
class Scan:
    """All posts in the order in which they came first."""

    max_distance: int
    ttl_ms: int
    posts: list[Post] = field(default_factory=list)

    def cell(self, post: Post) -> tuple[int, int]:
        return post.fingerprint, post.timestamp_ms // max(1, -(-self.ttl_ms // 32))

    def before(self, post: Post) -> list[Post]:
        return self.posts[: self.posts.index(post)]

    def original(self, post: Post) -> int | None:
        same = [other for other in self.before(post) if self.cell(other) == self.cell(post)]
        if len(same) >= 2:
            post = same[1]
        counts = Counter[tuple[int, int]]()
        for other in self.before(post):
            counts[self.cell(other)] += 1
            near = (other.fingerprint ^ post.fingerprint).bit_count() <= self.max_distance
            if near and counts[self.cell(other)] <= 2 and abs(other.timestamp_ms - post.timestamp_ms) <= self.ttl_ms:
                return other.fingerprint
        return None

    def ask(self, batch: list[Post]) -> list[int | None]:
        self.posts += [post for post in dict.fromkeys(batch) if post not in self.posts]
        return [self.original(post) for post in batch]


def ask(table: NearDuplicateTable, posts: list[Post]) -> list[int | None]:
    batch = table.batch(
        [post.post_id for post in posts],
        [post.fingerprint for post in posts],
        list(range(len(posts))),
        [post.timestamp_ms for post in posts],
    )
    table.remember(batch)
    answers = table.answers(batch)
    assert table.answers(batch) == answers
    return answers


bases = st.sampled_from([0, (1 << 64) - 1, 0x0123456789ABCDEF])
flips = st.lists(st.integers(0, 63), max_size=9)


@st.composite
def fingerprints(draw: st.DrawFn) -> int:
    value = draw(bases)
    for bit in draw(flips):
        value ^= 1 << bit
    return value


@st.composite
def crowds(draw: st.DrawFn) -> list[list[Post]]:
    """Batches of a few posts that come again and again."""
    made = draw(st.lists(st.tuples(st.sampled_from(draw(st.lists(fingerprints(), min_size=1, max_size=6))),
                                   st.integers(0, 250)), min_size=1, max_size=30))  # fmt: skip
    posts = st.sampled_from([Post(str(number), *each) for number, each in enumerate(made)])
    return draw(st.lists(st.lists(posts, max_size=12), max_size=6))


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 250), crowds())
def test_equals_a_scan(max_distance: int, ttl_ms: int, batches: list[list[Post]]) -> None:
    table, scan = NearDuplicateTable(max_distance, ttl_ms), Scan(max_distance, ttl_ms)
    for batch in batches:
        assert ask(table, batch) == scan.ask(batch)
    for batch in batches:
        assert ask(table, batch) == scan.ask(batch)
    assert len(table) <= len(scan.posts)


def test_within_a_batch_the_order_is_that_of_the_stream() -> None:
    table = NearDuplicateTable()
    batch = table.batch(["later", "first"], [0b0011, 0b0001], [2, 1], [0, 0])
    table.remember(batch)
    assert table.answers(batch) == [0b0001, None]


def test_a_reply_that_is_no_bucket_is_refused() -> None:
    table = NearDuplicateTable()
    reads = table.reads(table.batch(["a"], [7], [1], [0]))
    with pytest.raises(ValueError, match="does not have the buckets"):
        table.read(reads, [b"no bucket"] * 12)
    with pytest.raises(TypeError, match=r"reply\[0\] is str, not bytes"):
        table.read(reads, ["a"])  # type: ignore[list-item]
    table.read(reads, [b""] * 12)


def test_bad_input_is_refused_and_nothing_held() -> None:
    table = NearDuplicateTable()
    with pytest.raises(ValueError, match="2 ids, 1 fingerprints, 3 sequences and 2 timestamps_ms"):
        table.batch(["a", "b"], [1], [1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"fingerprints\[1\] is outside the range of an unsigned 64-bit int"):
        table.batch(["a", "b"], [1, 1 << 64], [1, 2], [1, 2])
    with pytest.raises(ValueError, match=r"fingerprints\[0\] is outside"):
        table.batch(["a"], [-1], [1], [1])
    with pytest.raises(TypeError, match=r"ids\[0\] is bytes, not str"):
        table.batch([b"a"], [1], [1], [1])  # type: ignore[list-item]
    assert len(table) == 0


@pytest.mark.parametrize("max_distance", [-1, 8])
def test_a_distance_it_cannot_have_is_refused(max_distance: int) -> None:
    with pytest.raises(ValueError, match="not from 0 to 7"):
        NearDuplicateTable(max_distance)
    with pytest.raises(ValueError, match="negative"):
        NearDuplicateTable(3, -1)
