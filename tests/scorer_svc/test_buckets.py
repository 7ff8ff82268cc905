from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scorer_svc.buckets import buckets


@given(
    st.lists(st.integers(1, 512), max_size=200),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(1, 40),
)
def test_every_text_once_and_little_padding(lengths: list[int], max_padding: float, max_texts: int) -> None:
    groups = buckets(lengths, max_padding=max_padding, max_texts=max_texts)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    for group in groups:
        assert 1 <= len(group) <= max_texts
        filled = len(group) * max(lengths[position] for position in group)
        assert 1 - sum(lengths[position] for position in group) / filled <= max_padding + 1e-9


def test_like_lengths_are_together() -> None:
    assert buckets([30, 8, 31, 8, 29, 120]) == [[1, 3], [4, 0, 2], [5]]


def test_no_more_groups_than_there_need_be() -> None:
    assert len(buckets([34] * 100)) == 4
