"""The assets that can be tracked, and what a symbol is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from sentimesh._native import SymbolExtractor
from sentimesh.errors import InvalidSymbolError

SYMBOL_PATTERN = re.compile(r"[A-Z0-9]{1,20}")
_QUOTED = re.compile(r"[/_-][A-Z0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Asset:
    """One tracked asset.

    ``names`` are lower-case words or phrases, each with whether it is also an ordinary word; such a name, or a
    ticker with ``is_english_word``, counts only with ``$`` or ``#``, in a pair, or beside a crypto context word.
    """

    symbol: str
    name: str
    names: tuple[tuple[str, bool], ...] = ()
    is_english_word: bool = False


@dataclass(frozen=True, slots=True)
class _Catalogue:
    assets: dict[str, Asset]
    context_words: tuple[str, ...]


@cache
def _catalogue() -> _Catalogue:
    content = yaml.safe_load(resources.files("sentimesh").joinpath("assets.yaml").read_text("utf-8"))
    assets = {}
    for entry in content["assets"]:
        names = tuple((name, False) for name in entry.get("names", ()))
        names += tuple((name, True) for name in entry.get("ambiguous_names", ()))
        assets[entry["symbol"]] = Asset(entry["symbol"], entry["name"], names, entry.get("ambiguous", False))
    return _Catalogue(assets, tuple(content["context_words"]))


def validate_symbol(text: str) -> str:
    """Return the ticker of ``eth``, ``$ETH``, ``#eth`` or ``ETH/USD`` (also with ``-`` or ``_``), here ``ETH``.

    Raises InvalidSymbolError for anything that is not one to twenty letters A-Z or digits.
    """
    ticker = text.strip().upper()
    ticker = ticker[1:] if ticker[:1] in ("$", "#") else ticker
    match = SYMBOL_PATTERN.match(ticker)
    rest = ticker[match.end() :] if match else ""
    if match is None or not text.isascii() or (rest and not _QUOTED.fullmatch(rest)):
        shown = text if len(text) <= 40 else text[:40] + "…"
        message = f"{shown!r} is not a symbol: give 1 to 20 letters or digits such as ETH, or a pair such as ETH/USD"
        raise InvalidSymbolError(message)
    return match.group()


def load_assets(symbols: Sequence[str]) -> list[Asset]:
    """Return an asset for each symbol, in order, each once.

    Symbols are taken as :func:`validate_symbol` reads them; one that the catalogue does not list gets an asset
    without names. Raises InvalidSymbolError.
    """
    known = _catalogue().assets
    wanted = dict.fromkeys(validate_symbol(symbol) for symbol in symbols)
    return [known.get(symbol) or Asset(symbol, symbol) for symbol in wanted]


def listed_symbols() -> list[str]:
    """Return every symbol of the catalogue, in its order."""
    return list(_catalogue().assets)


def context_words() -> tuple[str, ...]:
    """Return the lower-case words that make an ambiguous word beside them mean the asset."""
    return _catalogue().context_words


class TrackedExtractor:
    """Finds the tracked assets that texts name, told apart from untracked ones whose names contain theirs.

    "Ethereum Classic" is no mention of ETH and "Bitcoin SV" none of BTC, whether or not ETC and BSV are tracked.
    """

    def __init__(self, assets: Sequence[Asset]) -> None:
        """``assets``: the tracked ones."""
        tracked = {asset.symbol for asset in assets}
        names = {name for asset in assets for name, _ in asset.names}
        neighbours = [
            asset
            for asset in _catalogue().assets.values()
            if asset.symbol not in tracked and any(names & set(name.split()) for name, _ in asset.names)
        ]
        self._tracked = tracked
        self._extractor = SymbolExtractor(
            [(asset.symbol, list(asset.names), asset.is_english_word) for asset in [*assets, *neighbours]],
            list(context_words()),
        )

    def extract(self, texts: Sequence[str]) -> list[list[str]]:
        """Return each text's tracked symbols, each once, in order of first appearance."""
        return [[symbol for symbol in found if symbol in self._tracked] for found in self._extractor.extract(texts)]
