"""The crypto vocabulary: slang, emoji and tickers, with what they mean and which way they lean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import yaml

from scorer_svc.sentiment import ModelError

Group = Literal["words", "phrases", "emoji", "tickers"]

_WORD = r"[a-z][a-z0-9]+"
# An emoji is one character: VADER reads a text character by character.
_TOKENS: dict[Group, tuple[re.Pattern[str], str]] = {
    "words": (re.compile(_WORD), "one lower-case word of a-z and 0-9"),
    "phrases": (re.compile(r"[a-z0-9]+( [a-z0-9]+)+"), "lower-case words with one space between them"),
    "emoji": (re.compile(r"[^\w\s\x00-\x7f\ufe0f\u200d]"), "one character that is a symbol, without U+FE0F"),
    "tickers": (re.compile(_WORD), "one lower-case word of a-z and 0-9"),
}
_GLOSS = re.compile(r"[a-z]+( [a-z]+){0,7}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: ``token`` as it stands in a lower-cased text, ``gloss`` in plain English words.

    ``polarity``: -1.0 (bearish) to +1.0 (bullish), 0.0 for a word that says nothing, None where nothing is claimed.
    """

    group: Group
    token: str
    gloss: str
    polarity: float | None = None


def shipped_vocabulary() -> Path:
    """Return the file that is part of the package."""
    return Path(str(files("scorer_svc"))) / "vocabulary.yaml"


def load_vocabulary(path: Path | None = None) -> list[Entry]:
    """Return the entries of a file, by default the shipped one, in its order.

    Raises ModelError, naming file and line, for a file that does not have the form its own head describes.
    """
    path = path or shipped_vocabulary()
    try:
        # Nodes, not values: they know their lines, keep a key that comes twice, and do not take `no` for false.
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        shown = " ".join(str(error).split())
        raise ModelError(f"the vocabulary {path} cannot be read ({shown}): correct it or leave it out") from error
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for group_key, group_node in _pairs(path, root, f"give the groups {', '.join(_TOKENS)}"):
        group = next((name for name in get_args(Group) if name == group_key.value), None)
        if group is None:
            raise _fault(path, group_key, f"{group_key.value!r} is no group: use {', '.join(_TOKENS)}")
        for key, node in _pairs(path, group_node, f"under {group}, give entries token: {{gloss: …}}"):
            entries.append(_entry(path, group, key, node))
            if key.value in seen:
                raise _fault(path, key, f"{key.value!r} is already in line {seen[key.value]}: keep one of them")
            seen[key.value] = key.start_mark.line + 1
    return entries


def _entry(path: Path, group: Group, key: yaml.Node, node: yaml.Node) -> Entry:
    token = str(key.value)
    pattern, form = _TOKENS[group]
    if not pattern.fullmatch(token):
        raise _fault(path, key, f"{token!r} under {group} is not {form}: write it so")
    pairs = [(str(name.value), value) for name, value in _pairs(path, node, f"give {token!r} a {{gloss: …}}")]
    names, fields = sorted(name for name, _ in pairs), dict(pairs)
    if names not in (["gloss"], ["gloss", "polarity"]):
        given = ", ".join(names) or "nothing"
        raise _fault(path, key, f"{token!r} has {given}: give it one gloss, and one polarity or none")
    gloss = str(fields["gloss"].value)
    if not _GLOSS.fullmatch(gloss):
        raise _fault(path, key, f"the gloss of {token!r} is {gloss!r}: give one to eight lower-case words a-z")
    if "polarity" not in fields:
        return Entry(group, token, gloss)
    if group == "tickers":
        raise _fault(path, key, f"{token!r} is a name and has no polarity: take it away, or the entry to words")
    return Entry(group, token, gloss, _polarity(path, token, fields["polarity"]))


def _polarity(path: Path, token: str, node: yaml.Node) -> float:
    try:
        polarity = float(node.value)
    except (TypeError, ValueError):
        polarity = float("nan")
    if not -1.0 <= polarity <= 1.0:
        raise _fault(path, node, f"the polarity of {token!r} is {node.value!r}: give a number from -1 to 1")
    return polarity


def _pairs(path: Path, node: yaml.Node | None, otherwise: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _fault(path, node, otherwise)
    yield from node.value


def _fault(path: Path, node: yaml.Node | None, problem: str) -> ModelError:
    return ModelError(f"the vocabulary {path}, line {node.start_mark.line + 1 if node else 1}: {problem}")
