from __future__ import annotations

from pathlib import Path

import pytest

from scorer_svc.sentiment import ModelError
from scorer_svc.vocabulary import Entry, load_vocabulary, shipped_vocabulary


def written(folder: Path, text: str) -> Path:
    path = folder / "words.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_shipped_file_is_read_whole() -> None:
    entries = load_vocabulary()
    lines = [
        line for line in shipped_vocabulary().read_text("utf-8").splitlines() if "{gloss" in line and line[0] != "#"
    ]
    assert len(entries) == len(lines)
    assert {entry.group for entry in entries} == {"words", "phrases", "emoji", "tickers"}
    assert Entry("words", "rekt", "ruined by heavy losses", -0.75) in entries


def test_glosses_say_something_else_than_their_token() -> None:
    for entry in load_vocabulary():
        assert entry.token not in (entry.gloss, *entry.gloss.split()), entry


def test_every_kind_of_entry(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "words: {no: {gloss: a refusal, polarity: 0}}\n"
        "phrases: {to the moon: {gloss: far up, polarity: 1}}\n"
        'emoji: {"🚀": {gloss: far up, polarity: 0.25}}\n'
        "tickers: {x2y2: {gloss: a market}}\n",
    )
    assert load_vocabulary(path) == [
        Entry("words", "no", "a refusal", 0.0),
        Entry("phrases", "to the moon", "far up", 1.0),
        Entry("emoji", "🚀", "far up", 0.25),
        Entry("tickers", "x2y2", "a market"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: give the groups words, phrases, emoji, tickers"),
        ("[]", "line 1: give the groups"),
        ("# none\nverbs: {}", "line 2: 'verbs' is no group: use words, phrases, emoji, tickers"),
        ("words: [hodl]", "line 1: under words, give entries token: {gloss: …}"),
        ("words:\n  hodl: hold", "line 2: give 'hodl' a {gloss: …}"),
        ("words:\n  HODL: {gloss: hold}", "line 2: 'HODL' under words is not one lower-case word of a-z and 0-9"),
        ("words:\n  [a]: {gloss: hold}", "line 2: .* under words is not one lower-case word"),
        ("phrases:\n  moon: {gloss: up}", "line 2: 'moon' under phrases is not lower-case words with one space"),
        ("phrases:\n  the  moon: {gloss: up}", "line 2: 'the  moon' under phrases is not"),
        ('emoji:\n  "❤\ufe0f": {gloss: love}', "line 2: .* under emoji is not one character that is a symbol"),
        ("emoji:\n  a: {gloss: love}", "line 2: 'a' under emoji is not one character"),
        ("words:\n  hodl: {polarity: 1}", "line 2: 'hodl' has polarity: give it one gloss"),
        ("words:\n  hodl: {}", "line 2: 'hodl' has nothing: give it one gloss"),
        ("words:\n  hodl: {gloss: hold, valence: 1}", "line 2: 'hodl' has gloss, valence: give it one gloss"),
        ("words:\n  hodl: {gloss: hold, gloss: keep}", "line 2: 'hodl' has gloss, gloss: give it one gloss"),
        ("words:\n  hodl: {gloss: Hold!}", "line 2: the gloss of 'hodl' is 'Hold!': give one to eight"),
        ("words:\n  hodl: {gloss: a a a a a a a a a}", "line 2: the gloss of 'hodl' is .*: give one to eight"),
        ("words:\n  hodl: {gloss: [hold]}", "line 2: the gloss of 'hodl' is .*: give one to eight"),
        ("words:\n  a1:\n    gloss: up\n    polarity: 1.5", "line 4: the polarity of 'a1' is '1.5': give a number"),
        ("words:\n  a1: {gloss: up, polarity: nan}", "line 2: the polarity of 'a1' is 'nan': give a number"),
        ("words:\n  a1: {gloss: up, polarity: up}", "line 2: the polarity of 'a1' is 'up': give a number"),
        ("words:\n  a1: {gloss: up, polarity: [1]}", "line 2: the polarity of 'a1' is .*: give a number"),
        ("tickers:\n  btc: {gloss: bitcoin, polarity: 1}", "line 2: 'btc' is a name and has no polarity: take it away"),
        ("words:\n  btc: {gloss: up}\ntickers:\n  btc: {gloss: up}", "line 4: 'btc' is already in line 2: keep one"),
        ("words: {", "cannot be read .*: correct it or leave it out"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ModelError, match=message) as raised:
        load_vocabulary(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"words\.yaml cannot be read .*No such file"):
        load_vocabulary(tmp_path / "words.yaml")
    (tmp_path / "words.yaml").write_bytes(b"\xff\xfe\x00words")
    with pytest.raises(ModelError, match=r"words\.yaml cannot be read"):
        load_vocabulary(tmp_path / "words.yaml")
