from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest_svc.sources.payloads.markdown import plain
from ingest_svc.text import MAX_CODE_POINTS, clean, copy_hash, own_words


def test_entities_invisible_characters_and_needless_space_go() -> None:
    assert clean("Q&amp;A &amp;lt;3\u200b \ufeffnow\x00") == "Q&A <3 now"
    assert clean("\u200e\xa0\xa0 one \r\n \r\n\r\n\n two \n three  ") == "one\n\ntwo\nthree"
    assert clean("family: 👩\u200d💻 ok") == "family: 👩\u200d💻 ok"
    assert clean(" \u200d\n") == ""


def test_a_long_text_ends_at_a_word() -> None:
    text = "word " * 300
    assert clean(text) == ("word " * 200).strip()
    assert clean("é" * 1500) == "é" * MAX_CODE_POINTS
    assert len(clean("a" * 990 + " $LONGTICKER")) == 990


@given(st.text(max_size=1500))
def test_cleaning_leaves_nothing_to_clean_but_entities(text: str) -> None:
    once = clean(text.replace("&", ""))
    assert len(once) <= MAX_CODE_POINTS
    assert clean(once) == once
    once.encode()


def test_markdown_becomes_plain_text() -> None:
    assert plain("**Buy** the [dip](https://example.org/a_b) ~~now~~ `later`") == "Buy the dip  now later"
    assert plain("![gif](giphy|abc123)").strip() == ""
    # An image whose address is lost takes no words with it.
    assert plain("![meme]( somebody made this") == " somebody made this"
    assert plain(r"about \~100 \*stars\*") == "about ~100 *stars*"
    assert plain("# Title\n- one\n\n- two") == "Title\none\n\ntwo"
    assert plain("5 * 4 * 3 and snake_case") == "5 * 4 * 3 and snake_case"
    assert plain("source: [") == "source: "


def test_quoted_lines_are_not_the_authors_words() -> None:
    assert plain("> ETH is dead\n\nno it is not").strip() == "no it is not"
    assert plain("> only a quote") == "only a quote"
    assert plain(">!spoiler!<") == "spoiler"


def test_own_words_are_what_is_not_link_or_mention() -> None:
    assert own_words(" https://t.co/abc @somebody ") == ""
    assert own_words("@a look: https://t.co/abc") == "look:"
    assert own_words("mail a@b.org") == "mail a@b.org"


def test_copies_hash_alike_and_short_texts_not_at_all() -> None:
    text = "The treasury just bought another ten thousand coins, they say"
    assert copy_hash(text) == copy_hash(
        "THE TREASURY just bought another ten-thousand coins - they say!! https://t.co/x"
    )
    assert copy_hash(text) == copy_hash("@friend " + text)
    assert copy_hash(text) != copy_hash(text + " tomorrow")
    assert copy_hash("a" * 39) is None
    assert copy_hash("a" * 40) is not None
    assert copy_hash("a" * 30 + " https://example.org/" + "b" * 60) is None
