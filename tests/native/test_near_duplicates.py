"""The index against a scan over everything."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import NearDuplicateIndex


@dataclass
class Scan:
    max_distance: int
    ttl_ms: int
    latest_ms: int = -(1 << 62)
    entries: list[tuple[str, int, int]] = field(default_factory=list)

    def check_and_insert(self, post_id: str, fingerprint: int, timestamp_ms: int) -> tuple[str, int] | None:
        self.latest_ms = max(self.latest_ms, timestamp_ms)
        self.entries = [entry for entry in self.entries if entry[2] >= self.latest_ms - self.ttl_ms]
        found = None
        known = False
        for other_id, other, other_ms in self.entries:
            if other_id == post_id:
                known = True
                break
            near = (other ^ fingerprint).bit_count() <= self.max_distance
            if found is None and near and other_ms >= timestamp_ms - self.ttl_ms:
                found = other_id, other
        if not known and timestamp_ms >= self.latest_ms - self.ttl_ms:
            self.entries.append((post_id, fingerprint, timestamp_ms))
        return found


bases = st.sampled_from([0, (1 << 64) - 1, 0x0123456789ABCDEF])
flips = st.lists(st.integers(0, 63), max_size=9)


@st.composite
def fingerprints(draw: st.DrawFn) -> int:
    value = draw(bases)
    for bit in draw(flips):
        value ^= 1 << bit
    return value


entries = st.lists(st.tuples(st.integers(0, 12).map(str), fingerprints(), st.integers(-50, 250)), max_size=40)


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 120), st.lists(entries, max_size=3))
def test_equals_a_scan(max_distance: int, ttl_ms: int, batches: list[list[tuple[str, int, int]]]) -> None:
    index = NearDuplicateIndex(max_distance, ttl_ms)
    scan = Scan(max_distance, ttl_ms)
    for batch in batches:
        ids, values, times = ([entry[0] for entry in batch], [entry[1] for entry in batch], [e[2] for e in batch])
        found = index.check_and_insert(ids, values, times)
        assert found == [scan.check_and_insert(*entry) for entry in batch]
        assert len(index) == len(scan.entries)


def test_the_original_is_named_and_asking_twice_gives_the_same() -> None:
    index = NearDuplicateIndex()
    first = index.check_and_insert(["a", "b", "c"], [0b0000, 0b0111, 0b1111], [0, 1, 2])
    assert first == [None, ("a", 0b0000), ("b", 0b0111)]
    assert index.check_and_insert(["a", "b", "c"], [0b0000, 0b0111, 0b1111], [0, 1, 2]) == first
    assert len(index) == 3


def test_bad_input_is_refused_and_nothing_inserted() -> None:
    index = NearDuplicateIndex()
    with pytest.raises(ValueError, match="2 ids, 1 fingerprints and 2 timestamps_ms"):
        index.check_and_insert(["a", "b"], [1], [1, 2])
    with pytest.raises(ValueError, match=r"fingerprints\[1\] is outside the range of an unsigned 64-bit int"):
        index.check_and_insert(["a", "b"], [1, 1 << 64], [1, 2])
    with pytest.raises(ValueError, match=r"fingerprints\[0\] is outside"):
        index.check_and_insert(["a"], [-1], [1])
    with pytest.raises(TypeError, match=r"ids\[0\] is bytes, not str"):
        index.check_and_insert([b"a"], [1], [1])  # type: ignore[list-item]
    assert len(index) == 0


@pytest.mark.parametrize("max_distance", [-1, 8])
def test_a_distance_it_cannot_have_is_refused(max_distance: int) -> None:
    with pytest.raises(ValueError, match="not from 0 to 7"):
        NearDuplicateIndex(max_distance)
    with pytest.raises(ValueError, match="negative"):
        NearDuplicateIndex(3, -1)
