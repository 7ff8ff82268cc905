from __future__ import annotations

import pytest

from sentimesh.errors import InvalidSymbolError
from sentimesh.symbols import (
    SYMBOL_PATTERN,
    Asset,
    TrackedExtractor,
    context_words,
    listed_symbols,
    load_assets,
    validate_symbol,
)

DEFAULT = (
    *("BTC", "ETH", "SOL", "XRP", "BNB", "DOGE", "ADA", "TRX", "LINK", "AVAX"),
    *("DOT", "LTC", "BCH", "SHIB", "UNI", "NEAR", "ATOM", "XLM", "XMR", "APT"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eth", "ETH"),
        ("ETH/USD", "ETH"),
        ("eth-usdt", "ETH"),
        ("$eth", "ETH"),
        ("#Eth", "ETH"),
        (" 1INCH ", "1INCH"),
        ("A" * 20, "A" * 20),
    ],
)
def test_a_symbol_is_taken_in_the_forms_people_write(text: str, expected: str) -> None:
    assert validate_symbol(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "$", "$$ETH", "ETH/", "ETH/USD/BTC", "/USD", "A" * 21, "ET H", "é", "ß", "x; DROP", "ETH\nBTC"]
)
def test_what_cannot_be_a_symbol_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidSymbolError, match="is not a symbol: give 1 to 20 letters or digits"):
        validate_symbol(text)


def test_the_catalogue_is_well_formed_and_holds_the_default_symbols() -> None:
    listed = listed_symbols()
    assert len(listed) == len(set(listed)) >= 60
    assert set(DEFAULT) <= set(listed)
    owners: dict[str, str] = {}
    for asset in load_assets(listed):
        assert SYMBOL_PATTERN.fullmatch(asset.symbol)
        for name, _ in asset.names:
            assert name == name.lower().strip()
            assert owners.setdefault(name, asset.symbol) == asset.symbol
    assert all(word == word.lower() for word in context_words())


def test_assets_come_in_the_order_asked_each_once_and_unknown_ones_without_names() -> None:
    assets = load_assets(["zzz9", "btc", "ZZZ9/USD", "NEAR"])
    assert [asset.symbol for asset in assets] == ["ZZZ9", "BTC", "NEAR"]
    assert assets[0] == Asset("ZZZ9", "ZZZ9")
    assert ("bitcoins", False) in assets[1].names
    assert assets[2].is_english_word
    with pytest.raises(InvalidSymbolError):
        load_assets(["BTC", "no symbol"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("selling my bitcoins for ether", ["BTC", "ETH"]),
        ("$sol and #ada look fine", ["SOL", "ADA"]),
        ("BCH/USD beats LTC-USDT", ["BCH", "LTC"]),
        ("Bitcoin Cash is not the same thing", ["BCH"]),
        ("bitcoin cash or bitcoin?", ["BCH", "BTC"]),
        ("the price is near the one I had in mind, link below, dot dot dot", []),
        ("I live on the atom scale, my apt is near the uni", []),
        ("$NEAR and #link are up", ["NEAR", "LINK"]),
        ("the near protocol team shipped", ["NEAR"]),
        ("LINK/USDT long", ["LINK"]),
        ("a link token, they say", ["LINK"]),
        ("still staking LINK", ["LINK"]),
        ("airdrop link: click the link", []),
        ("coin name and link in five minutes", []),
        ("in the near future every token holder", []),
        ("two near-term crypto events", []),
        ("tron fees", ["TRX"]),
        ("the ripple effect on crypto", []),
        ("Ripple up, Bitcoin down", ["XRP", "BTC"]),
        ("ask @bitcoin or look at https://eth.example/btc", []),
        ("nothing to see", []),
    ],
)
def test_the_default_symbols_are_found_in_plain_texts(text: str, expected: list[str]) -> None:
    assert TrackedExtractor(load_assets(DEFAULT)).extract([text]) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ethereum Classic is pumping", []),
        ("ethereum and Ethereum Classic", ["ETH"]),
        ("bitcoin cash, #BitcoinSV and bitcoin", ["BTC"]),
        ("$ETC $ETH", ["ETH"]),
    ],
)
def test_an_untracked_asset_whose_name_contains_a_tracked_one_is_not_that(text: str, expected: list[str]) -> None:
    assert TrackedExtractor(load_assets(["BTC", "ETH"])).extract([text]) == [expected]
