"""What an author wrote, without what the platform wrapped it in."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata

MAX_CODE_POINTS = 1000
MIN_COPY_CHARACTERS = 40

_LINK = re.compile(r"https?://\S+|www\.\S+")
_MENTION = re.compile(r"(?<!\w)@\w+")
_SPACE = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")
_WORDS = re.compile(r"[^\W_]+")
# The categories Cc (control) and Cf (format) without tab, line feed and the zero-width joiner that makes one emoji of
# several, and surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b\u200c\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0001-\U000e007f]"
)


def clean(text: str) -> str:
    """Return text without entities, invisible characters and needless white space, at most 1000 code points.

    Entities are resolved twice, since Reddit's own escaping of what was typed as ``&amp;`` is common.
    """
    text = html.unescape(html.unescape(text)) if "&" in text else text
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _BLANK_LINES.sub(lambda found: "\n\n" if found.group().count("\n") > 1 else "\n", _SPACE.sub(" ", text))
    text = text.strip(" \n\u200d")
    if len(text) <= MAX_CODE_POINTS:
        return text
    # Not in the middle of a word, where that costs little: half a ticker is another ticker.
    end = max(text.rfind(" ", MAX_CODE_POINTS - 50, MAX_CODE_POINTS + 1), text.rfind("\n", 950, MAX_CODE_POINTS + 1))
    return text[: end if end > 0 else MAX_CODE_POINTS].rstrip()


def own_words(text: str) -> str:
    """Return what is left of a text without links and mentions."""
    return _MENTION.sub("", _LINK.sub("", text)).strip()


def copy_hash(text: str) -> str | None:
    """Return a hash that is equal for copies of a text, whatever their case, links, mentions and punctuation.

    None for texts under 40 characters after folding: short ones are alike by chance.
    """
    folded = " ".join(_WORDS.findall(unicodedata.normalize("NFKC", own_words(text)).casefold()))
    if len(folded) < MIN_COPY_CHARACTERS:
        return None
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()
