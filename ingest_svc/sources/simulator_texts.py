"""The grammar that puts the phrases of the invented crowd together, and how people type."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from ingest_svc.sources.simulator_phrases import PHRASES

# Slots that the caller fills: a way to name the coin, its price and one near it, and numbers of any kind.
GIVEN = frozenset({"coin", "price", "level", "percent", "number", "money", "code"})
_KEPT = frozenset({"coin", "price", "level"})
# Where prices start, US dollars: of the right order, nothing more.
PRICES: Mapping[str, float] = {
    "BTC": 96_000, "ETH": 3_300, "SOL": 230, "XRP": 1.4, "BNB": 640, "DOGE": 0.4, "ADA": 0.95, "TRX": 0.2, "LINK": 17.5,
    "AVAX": 42, "DOT": 8.5, "LTC": 95, "BCH": 510, "SHIB": 0.000025, "UNI": 11, "NEAR": 6.6, "ATOM": 8.2, "XLM": 0.48,
    "XMR": 160, "APT": 12.3,
}  # fmt: skip
_SLOT = re.compile(r"\{(\w+)\}")
# A phrase: its first literal, and each slot in it, followed by a literal; a slot is its phrases, or one of GIVEN.
_Phrase = tuple[str, list[tuple[Any, str]]]


def _grammar() -> dict[str, list[_Phrase]]:
    compiled: dict[str, list[_Phrase]] = {slot: [] for slot in PHRASES}
    for slot, phrases in PHRASES.items():
        for phrase in phrases:
            first, *rest = _SLOT.split(phrase)
            slots = [name if name in GIVEN else compiled[name] for name in rest[::2]]
            compiled[slot].append((first, list(zip(slots, rest[1::2], strict=True))))
    return compiled


_GRAMMAR = _grammar()
_ENDINGS = ("", "", " 🚀", " 🔥", "!", "!!", " 💰", " #crypto", " 👀", ".", " 🚀🚀")
_SWAPS = (
    ("huge", "big"),
    ("everybody", "everyone"),
    ("do not", "don't"),
    ("quietly ", ""),
    ("today", "now"),
    ("free", "FREE"),
)


class Words(dict[str, str]):
    """The caller's words of one text, made when a phrase asks for them; a price is the same throughout it."""

    def __init__(self, make: Callable[[str], str]) -> None:
        """``make`` returns the words for a slot of ``GIVEN``."""
        super().__init__()
        self._make = make

    def __missing__(self, slot: str) -> str:
        """Make the words of a slot."""
        words = self._make(slot)
        if slot in _KEPT:
            self[slot] = words
        return words


def expand(rng: random.Random, slot: str, given: Words) -> str:
    """Return a random phrase of a slot with every slot in it filled, those of ``GIVEN`` by the caller's words."""
    parts: list[str] = []
    _write(rng.random, _GRAMMAR[slot], given, parts)
    return "".join(parts)


def _write(draw: Callable[[], float], phrases: list[_Phrase], given: Words, parts: list[str]) -> None:
    first, rest = phrases[int(draw() * len(phrases))]
    parts.append(first)
    for slot, literal in rest:
        if type(slot) is str:
            parts.append(given[slot])
        else:
            _write(draw, slot, given, parts)
        parts.append(literal)


def vary(rng: random.Random, text: str) -> str:
    """Return a text with the small edits by which copies of a campaign differ."""
    if rng.random() < 0.3:
        text = text.replace(*rng.choice(_SWAPS))
    if rng.random() < 0.2:
        text = text[0].lower() + text[1:]
    return text + rng.choice(_ENDINGS)


def casual(rng: random.Random, text: str) -> str:
    """Return a text as hurried people type it: now and then without capitals, apostrophes or a final point."""
    draw = rng.random()
    if draw < 0.25:
        return text[:1].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
    if draw < 0.35:
        return text.replace("'", "")
    if draw < 0.40:
        return text.upper()
    return text
