"""Texts of like length together, so that a batch is hardly padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def filled_length(tokens: int) -> int:
    """Return to how many tokens a text is filled up: a multiple of 1, 2, 4, 8 …, less than a tenth of it padding.

    It is the text's own length that decides, so a text has the same shape in any company.
    """
    width = 1
    # With twice the width the longest padding, one less than that, is still under a tenth.
    while _multiple(tokens, 2 * width) > 10 * (2 * width - 1):
        width *= 2
    return _multiple(tokens, width)


def buckets(lengths: Sequence[int], *, max_texts: int) -> list[list[int]]:
    """Return the positions of texts in groups of one :func:`filled_length`, each position once, longest texts first.

    ``lengths``: tokens of each text, at least one. A group has at most ``max_texts`` texts.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for position, tokens in enumerate(lengths):
        alike[filled_length(tokens)].append(position)
    return [
        alike[length][first : first + max_texts]
        for length in sorted(alike, reverse=True)
        for first in range(0, len(alike[length]), max_texts)
    ]


def _multiple(tokens: int, width: int) -> int:
    return -(-tokens // width) * width
