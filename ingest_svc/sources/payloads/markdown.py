"""Markdown as Reddit and Discord have it, to plain text."""

from __future__ import annotations

import re

_IMAGE = re.compile(r"!\[[^\]\n]*\]\((?:[^()\s]*\))?")
_LINK = re.compile(r"\[([^\[\]\n]+)\]\((?:[^()\s]*(?: \"[^\"\n]*\")?\))?")
_LEFT_OVER = re.compile(r"\]\(|\[(?=\s|$)")
_QUOTED_LINE = re.compile(r"^ {0,3}>(?!!).*\n?", re.MULTILINE)
# An escaped character stands for itself; every other alternative is a mark.
_MARKS = re.compile(
    r"\\([\\`*_{}\[\]()#+\-.!^~>|$&])"
    r"|\*\*|~~|__|`+|>!|!<|\|\||^#{1,6}[ \t]+|^ {0,3}>+ ?|^[ \t]*[*-][ \t]+|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)",
    re.MULTILINE,
)


def plain(text: str) -> str:
    """Return plain text: link labels stay; addresses, images, marks and quoted lines (another's words) go.

    A text that is nothing but a quotation keeps it.
    """
    own = _QUOTED_LINE.sub("", text)
    text = _IMAGE.sub("", own if own.strip() else text)
    text = _LEFT_OVER.sub("", _LINK.sub(r"\1 ", text))
    return _MARKS.sub(lambda found: found[1] or "", text)
