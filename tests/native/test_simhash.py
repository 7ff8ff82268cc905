"""SimHash against a version that says each step as the definition does."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import simhash64

MASK = (1 << 64) - 1


def fold(text: str) -> str:
    lower = "".join(character.lower() for character in unicodedata.normalize("NFKC", text))
    lower = re.sub(r"^\s*(rt\s+@[a-z0-9_]+:?\s*)*", "", lower)
    lower = re.sub(r"https?://\S*|(?<!\w)www\.\S*|(?<!\w)@[a-z0-9_]*", " ", lower)
    return " ".join("".join(character if character.isalnum() else " " for character in lower).split())


def gram_hash(gram: str) -> int:
    value = 0
    for character in gram:
        value = (value << 16 ^ ord(character)) & MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & MASK
    return value ^ value >> 33


def oracle(text: str) -> int:
    folded = fold(text)
    if not folded:
        return 0
    grams = [folded[at : at + 4] for at in range(max(1, len(folded) - 3))]
    hashes = [gram_hash(gram) for gram in grams]
    return sum(1 << bit for bit in range(64) if 2 * sum(value >> bit & 1 for value in hashes) > len(hashes))


def is_settled(character: str) -> bool:
    """Say whether both libraries call the same of its forms alphabetic: marks and symbols are so in one only."""
    forms = unicodedata.normalize("NFKC", character).lower()
    return not any(unicodedata.category(form) in {"Mn", "Mc", "Me", "So"} for form in forms)


# Letters newer than Python's tables are unassigned in them.
plain = st.text(st.characters(exclude_categories=["Cs", "Cn", "Cc", "Mn", "Mc", "Me", "So"]).filter(is_settled))
pieces = st.sampled_from(
    ["RT @Whale_Alert: ", "rt  @a ", "rt", " ", "\n\n", "@", "@someone", "https://t.co/aB1", "HTTP://", "www.", "www.x",
     "x@y.z", "BTC", "to the Moon", "🚀", "ΑΣ", "İ", "_", ":", "é", "e\u0301", "\uff37\uff37\uff37.", "①", "ﬁ",
     "…", "\u2019", "\U0001d5fa"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(pieces | plain, max_size=12).map("".join))
def test_equals_the_definition(text: str) -> None:
    assert simhash64([text]) == [oracle(text)]


@settings(deadline=None)
@given(st.text(alphabet="ab ", min_size=40, max_size=300))
def test_equals_the_definition_where_grams_repeat(text: str) -> None:
    assert simhash64([text]) == [oracle(text)]


def test_only_words_count() -> None:
    first, *others = simhash64(
        [
            "BTC to the moon",
            "RT @whale: #btc,  to\nthe MOON!! 🚀 https://t.co/x",
            "$BTC (to) the \uff2d\U0001d5fcon…",
        ]
    )
    assert others == [first, first] != [0, 0]


def test_nothing_left_is_zero() -> None:
    assert simhash64(["", " @someone https://t.co/x\n", "🚀!?"]) == [0, 0, 0]
    assert simhash64([]) == []


def test_a_bad_item_is_named_by_its_index() -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] is int, not str"):
        simhash64(["a", 5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"texts\[2\] holds a lone surrogate"):
        simhash64(["a", "b", "\ud800"])
    with pytest.raises(TypeError, match="texts is a single str"):
        simhash64("abc")
