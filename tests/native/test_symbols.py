"""The extractor against regular expressions, and examples of what it is for."""

import re
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import SymbolExtractor

ASSETS = [
    ("BTC", [("bitcoin", False)], False),
    ("BCH", [("bitcoin cash", False)], False),
    ("ETH", [("ethereum", False)], False),
    ("LINK", [("chainlink", False)], True),
    ("NEAR", [("near protocol", False)], True),
    ("ONE", [("harmony", True)], True),
    ("XRP", [("ripple", True)], False),
    ("SHIB", [("shiba inu", True)], False),
    ("USDT", [("tether", True)], False),
    ("S", [], True),
    ("1INCH", [], False),
]
CONTEXT = ["coin", "token", "network", "crypto", "airdrop", "usdt"]

CASES = [
    ("$BTC's run, #Bitcoin's day (ETH)", ["BTC", "ETH"]),
    ("$btc.", ["BTC"]),
    ("$BTC🚀🚀", ["BTC"]),
    ("BTC/USD, ETH-USDT and LINKUSDT", ["BTC", "ETH", "LINK"]),
    ("BINANCE:LINKUSD", ["LINK"]),
    ("ETH/BTC", ["ETH", "BTC"]),
    ("BTC_USDT", ["BTC"]),
    ("USDT is fine", ["USDT"]),
    ("I paid $100 and $1,000.50", []),
    ("$1INCH", ["1INCH"]),
    ("wbtc, BTCs, ethers, éth, Bitcoiner, btcé", []),
    ("看好BTC大涨, BTCは", ["BTC"]),
    ("https://example.com/BTC www.bitcoin.org t.me/eth vitalik.eth bitcoin.com", []),
    ("@btc @ETH_whale mail btc@example.com", []),
    ("BTC@9000", ["BTC"]),
    ("#btchttps://t.co/abc", ["BTC"]),
    ("$BTC$ETH #link#near", ["BTC", "ETH", "LINK", "NEAR"]),
    ("Bitcoin Cash is not Bitcoin", ["BCH", "BTC"]),
    ("bitcoin-cash", ["BCH"]),
    ("bitcoin. Cash", ["BTC"]),
    ("#BitcoinCash", ["BCH"]),
    ("#bitcoin_cash", ["BCH"]),
    ("#BitcoinPrice", []),
    ("ETH, btc, eth", ["ETH", "BTC"]),
    ("don't sell, it's a link", []),
    ("near protocol, the link token", ["NEAR", "LINK"]),
    ("one of the best crypto coins, click the link near you", []),
    ("airdrop link below", []),
    ("Bitcoin is near $8,000", ["BTC"]),
    ("BITCOIN NEAR $8,000 TODAY", ["BTC"]),
    ("LINK TO BUY ETH here", ["ETH"]),
    ("LINK at $7.42 looks good", ["LINK"]),
    ("rotating ETH and NEAR now", ["ETH", "NEAR"]),
    ("Ripple and Bitcoin rose", ["XRP", "BTC"]),
    ("a ripple of bitcoin news", ["BTC"]),
    ("my shiba inu is asleep", []),
    ("$SHIB #ShibaInu", ["SHIB"]),
    ("", []),
]


@pytest.fixture(scope="module")
def extractor() -> SymbolExtractor:
    return SymbolExtractor(ASSETS, CONTEXT)


@pytest.mark.parametrize(("text", "symbols"), CASES)
def test_examples(extractor: SymbolExtractor, text: str, symbols: list[str]) -> None:
    assert extractor.extract([text]) == [symbols]


W = r"(?:(?![\u2e80-\u9fff\uac00-\ud7af])[\w\u0300-\u036f])"
WORD = rf"{W}(?:(?!https?://){W})*"
ENDINGS = "ai|app|biz|co|com|de|dev|edu|eth|gg|gov|info|io|net|org|tv|xyz"
SKIPPED = [
    rf"(?i:https?://|www\.|{WORD}://)\S*",
    rf"{WORD}(?:[.-]{WORD})*@(?=[^\W\d_])(?:{W}|[.-])*",
    rf"(?:{WORD}[.-])*{WORD}\.(?:{ENDINGS})(?=https?://|(?!{W}|[.-]{W}))(?:[/?:](?={W})\S*)?",
    rf"(?:{WORD}[.-])*{WORD}\.(?:be|is|it|ly|me|to)[/?:](?={W})\S*",
    rf"(?<!{W})@[A-Za-z0-9_]*|@(?![0-9])[A-Za-z0-9_]*",
]
SCAN = re.compile(
    "|".join(rf"(?P<skip{number}>{pattern})" for number, pattern in enumerate(SKIPPED))
    + rf"|(?P<amount>\$(?:\.[0-9]{W}*))|(?P<mark>[$#])(?P<tag>{WORD})|(?P<word>{WORD})",
)
MONEY = ["usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "aud", "cad", "perp"]
QUOTES = [*MONEY, "btc", "eth", "bnb"]
GLUED = ["fdusd", "busd", "perp", "tusd", "usdc", "usdt", "btc", "eur", "jpy", "krw", "usd"]


class Token(NamedTuple):
    kind: str  # word, $, #, amount or other
    text: str
    start: int
    end: int


def tokenize(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        match = SCAN.match(text, at)
        if match is None:
            at += 1
            continue
        at = max(match.end(), at + 1)
        inside = match.start() > 0 and re.match(W, text[match.start() - 1]) is not None
        if match["amount"]:
            tokens.append(Token("amount", match["amount"], match.start(), match.end()))
        elif match["tag"]:
            chained = bool(tokens) and tokens[-1].end == match.start() and tokens[-1].kind in "$#"
            kind = "other" if inside and not chained else match["mark"]
            tokens.append(Token(kind, match["tag"], match.start(), match.end()))
            number = re.compile(rf"(?:[.,][0-9]{W}*)*").match(text, at)
            if number and match["mark"] == "$" and match["tag"][0].isdigit():
                at = number.end()
        elif match["word"]:
            apostrophe = re.search(rf"{W}['\u2019]$", text[: match.start()]) is not None
            tokens.append(Token("other" if apostrophe else "word", match["word"], match.start(), match.end()))
    return tokens


def oracle(text: str) -> list[str]:
    tickers = {symbol.lower(): symbol for symbol, _, _ in ASSETS}
    phrases: dict[tuple[str, ...], tuple[str, bool, bool]] = {
        (symbol.lower(),): (symbol, english, True) for symbol, _, english in ASSETS
    }
    for symbol, names, _ in ASSETS:
        phrases.update({tuple(name.split()): (symbol, english, False) for name, english in names})
    tags = {"".join(words): symbol for words, (symbol, _, _) in phrases.items()}
    first_words = {words[0] for words in phrases}
    tokens = tokenize(text)
    lower = [token.text.lower() for token in tokens]

    def gap(left: int) -> str:
        return text[tokens[left].end : tokens[left + 1].start]

    def joined(left: int) -> bool:
        return re.fullmatch(r"\s+|[-.]", gap(left)) is not None

    def quoted(at: int) -> bool:
        after = at + 1 < len(tokens) and tokens[at + 1].kind == "word"
        return after and gap(at) in ("/", "-") and lower[at + 1] in QUOTES

    def glued(at: int) -> list[str]:
        base, _, quote = lower[at].partition("_")
        matches = [(base, quote)] if quote in QUOTES else []
        if not matches:
            found = [(lower[at][:cut], lower[at][cut:]) for cut in range(1, len(lower[at]))]
            matches = [pair for pair in found if pair[1] in GLUED and pair[0] in tickers]
        if lower[at] in QUOTES or not matches or matches[0][0] not in tickers:
            return []
        base, quote = matches[0]
        return [tickers[base]] + ([tickers[quote]] if quote in ("btc", "eth", "bnb") and quote in tickers else [])

    sure: list[tuple[int, str]] = []
    unsure: list[tuple[int, int, str, bool]] = []
    amounts = []
    at, quote = 0, -1
    while at < len(tokens):
        kind, word = tokens[at].kind, tokens[at].text
        length = 1
        if kind == "amount":
            amounts.append(at)
        elif kind in "$#":
            tagged = tags.get(lower[at].replace("_", ""))
            if tagged and not (kind == "$" and word.isdigit()):
                sure.append((at, tagged))
                quote = at + 1 if quoted(at) and lower[at + 1] in MONEY else -1
            elif glued(at):
                sure += [(at, symbol) for symbol in glued(at)]
            elif kind == "$" and word[0].isdigit():
                amounts.append(at)
        elif kind == "word" and at != quote:
            for length in (2, 1):
                words = tuple(lower[at : at + length])
                same = all(tokens[at + n].kind == "word" and joined(at + n - 1) for n in range(1, len(words)))
                if words in phrases and same and len(words) == length:
                    symbol, english, is_ticker = phrases[words]
                    if english and not (length == 1 and quoted(at)):
                        name = word == word.upper() if is_ticker else word[0].isupper()
                        unsure.append((at, at + length, symbol, name))
                    else:
                        sure.append((at, symbol))
                    if length == 1:
                        quote = at + 1 if quoted(at) and lower[at + 1] in MONEY else -1
                    break
            else:
                sure += [(at, symbol) for symbol in glued(at)]
        at += length

    def is_context(at: int) -> bool:
        return tokens[at].kind in ("word", "#") and lower[at] in CONTEXT

    def is_loud(at: int) -> bool:
        plain = lower[at] not in first_words and lower[at] not in CONTEXT and lower[at] not in QUOTES
        capitals = sum(c.isupper() for c in tokens[at].text) > 1 and not any(c.islower() for c in tokens[at].text)
        return tokens[at].kind == "word" and plain and capitals

    found = list(sure)
    for start, end, symbol, name in unsure:
        around = [*range(max(0, start - 6), start), *range(end, min(len(tokens), end + 6))]
        after = end < len(tokens) and joined(end - 1)
        before = start > 0 and joined(start - 1)
        quiet = any(tokens[at].kind == "word" and any(c.islower() for c in tokens[at].text) for at in around)
        shouted = (after and is_loud(end)) or (before and is_loud(start - 1))
        shouted = shouted or (not quiet and any(is_loud(at) or at in amounts for at in around))
        mentions = [at for at, _ in sure]
        near = any(at in mentions or at in amounts or is_context(at) for at in around)
        if (after and is_context(end)) or (name and not shouted and near):
            found.append((start, symbol))
    found.sort(key=lambda mention: mention[0])
    return list(dict.fromkeys(symbol for _, symbol in found))


names = ["BTC", "btc", "Bitcoin", "bitcoin", "cash", "Cash", "ETH", "eth", "LINK", "link", "NEAR", "near", "protocol",
         "ONE", "one", "Ripple", "ripple", "XRP", "Shiba", "shiba", "inu", "USDT", "usd", "USD", "eur", "S", "s",
         "1INCH", "100", "0.42", "token", "crypto", "airdrop", "#crypto", "the", "TO", "BUY", "is", "don", "com", "io",
         "me", "www.", "http", "https://", "http://t.co/x", "btcusdt", "LINKUSD", "busd", "1"]  # fmt: skip
joints = ["", " ", " ", " ", "\n ", "/", "-", "_", ".", ",", ", ", "$", "#", " $", " #", "@", " @", "'", "\u2019", ":", "://",
          "🚀", "买", "é", "(", ") ", " $.5 "]  # fmt: skip
texts = st.lists(st.tuples(st.sampled_from(names), st.sampled_from(joints)).map("".join), max_size=12).map("".join)


@settings(deadline=None)
@given(st.lists(texts, max_size=4))
def test_equals_regular_expressions(extractor: SymbolExtractor, batch: list[str]) -> None:
    assert extractor.extract(batch) == [oracle(text) for text in batch]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0x24F, exclude_categories=["Cs", "Cc", "Cn"]), max_size=60))
def test_any_text_equals_regular_expressions(extractor: SymbolExtractor, text: str) -> None:
    assert extractor.extract([text + " $btc"]) == [oracle(text + " $btc")]


def test_bad_input_is_named_by_its_index(extractor: SymbolExtractor) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] is NoneType, not str"):
        extractor.extract(["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r'assets\[1\] has the symbol "b!"'):
        SymbolExtractor([("A", [], False), ("b!", [], False)], [])
    with pytest.raises(ValueError, match=r"assets\[0\] has the name"):
        SymbolExtractor([("A", [("a  b", False)], False)], [])
    with pytest.raises(TypeError, match=r"assets\[1\] is not \(symbol"):
        SymbolExtractor([("A", [], False), "B"], [])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"context_words\[0\]"):
        SymbolExtractor([], ["two words"])
