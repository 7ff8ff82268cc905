from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scorer_svc.buckets import buckets, filled_length


@given(st.integers(1, 5_000))
def test_less_than_a_tenth_is_padding_and_longer_texts_are_not_filled_to_less(tokens: int) -> None:
    filled = filled_length(tokens)
    assert 0 <= filled - tokens < 0.1 * filled
    assert filled <= filled_length(tokens + 1)
    assert filled_length(filled) == filled


def test_lengths_are_few() -> None:
    """Of the 128 that there are."""
    assert len({filled_length(tokens) for tokens in range(1, 129)}) == 36


@given(st.lists(st.integers(1, 512), max_size=200), st.integers(1, 40))
def test_every_text_once_and_only_with_its_like(lengths: list[int], max_texts: int) -> None:
    groups = buckets(lengths, max_texts=max_texts)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    filled = [{filled_length(lengths[position]) for position in group} for group in groups]
    assert all(len(each) == 1 for each in filled)
    assert [max(each) for each in filled] == sorted((max(each) for each in filled), reverse=True)
    # No group more than there need be.
    for length in set().union(*filled):
        alike = sum(filled_length(tokens) == length for tokens in lengths)
        assert sum(length in each for each in filled) == -(-alike // max_texts)
    assert all(len(group) <= max_texts for group in groups)


def test_like_lengths_are_together() -> None:
    assert buckets([30, 8, 31, 8, 29, 120], max_texts=2) == [[5], [0, 2], [4], [1, 3]]
