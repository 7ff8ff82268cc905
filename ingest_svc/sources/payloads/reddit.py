"""A Reddit thing: a comment (``t1``) or a post (``t3``)."""

from __future__ import annotations

import html
import re

from ingest_svc.sources.payloads.fields import Fields
from ingest_svc.text import clean
from sentimesh.pb.social_sentiment_pb2 import SocialPost

# What stands in place of words that their author or a moderator took back.
_REMOVED = frozenset({"[deleted]", "[removed]", "[deleted by user]", "[ Removed by Reddit ]"})

_MARKDOWN_IMAGE = re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)?")
_MARKDOWN_LINK = re.compile(r"\[([^\[\]\n]+)\]\(\s?(?:[^()\s]*\)?)?")
_MARKDOWN_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!^~>|$&])")
_MARKDOWN_QUOTE = re.compile(r"^ {0,3}>(?!!).*\n?", re.MULTILINE)
_MARKDOWN_MARKS = re.compile(
    r"\*\*|~~|__|`+|>!|!<|^#{1,6}\s+|^\s*[*-]\s+|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)", re.MULTILINE
)


def read(payload: Fields, post: SocialPost) -> bool:
    """Fill ``post``; never written by a declared bot. Raises MalformedMessageError."""
    kind = payload.text("kind")
    data = payload.object("data")
    if kind not in ("t1", "t3"):
        raise payload.fail("kind", "t1 (comment) or t3 (post)")
    if data is None:
        raise payload.fail("data", "an object")
    post.post_id = f"reddit:{kind}_{data.identifier('id')}"
    post.timestamp_ms = data.time_ms("created_utc")
    parts = [data.text("body")] if kind == "t1" else [data.text("title"), data.text("selftext")]
    if parent := data.text("crosspost_parent"):
        post.repost_of = f"reddit:{parent}"
        parts += [original.text("selftext") for original in data.objects("crosspost_parent_list")[:1]]
    if not _REMOVED.intersection(parts):
        post.text = clean("\n\n".join(plain for part in parts if (plain := plain_markdown(part).strip())))
    author = data.text("author")
    if author != "[deleted]":
        post.author_id = data.text("author_fullname") or author
    post.engagement.likes = data.count("score")
    post.engagement.replies = data.count("num_comments")
    if permalink := data.text("permalink"):
        post.source_url = f"https://www.reddit.com{permalink}"
    return False


def plain_markdown(text: str) -> str:
    """Return Reddit's markdown as plain text: link labels stay, addresses, images, marks and quoted lines go.

    A comment that is nothing but a quotation keeps it.
    """
    text = html.unescape(text)
    text = _MARKDOWN_QUOTE.sub("", text) if _MARKDOWN_QUOTE.sub("", text).strip() else text
    text = _MARKDOWN_LINK.sub(r"\1 ", _MARKDOWN_IMAGE.sub("", text))
    return _MARKDOWN_MARKS.sub("", _MARKDOWN_ESCAPE.sub(r"\1", text))
