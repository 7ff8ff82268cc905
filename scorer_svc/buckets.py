"""Texts of like length together, so that a batch is hardly padded."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PADDING = 0.1
MAX_TEXTS = 32


def buckets(lengths: Sequence[int], *, max_padding: float = MAX_PADDING, max_texts: int = MAX_TEXTS) -> list[list[int]]:
    """Return the positions of texts in groups, each position once, shortest texts first.

    ``lengths``: tokens of each text, at least one. Of the tokens of a group, filled up to its longest text, at most
    ``max_padding`` (0.0 to 1.0, exclusive) are padding; it has at most ``max_texts`` texts.
    """
    groups: list[list[int]] = []
    tokens = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[position]
        tokens += length
        if not groups or len(groups[-1]) == max_texts or tokens < (1.0 - max_padding) * length * (len(groups[-1]) + 1):
            groups.append([])
            tokens = length
        groups[-1].append(position)
    return groups
