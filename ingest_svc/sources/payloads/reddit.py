"""A Reddit thing: a comment (``t1``) or a post (``t3``)."""

from __future__ import annotations

import html

from ingest_svc.sources.payloads.fields import Fields
from ingest_svc.sources.payloads.markdown import plain
from ingest_svc.text import clean
from sentimesh.pb.social_sentiment_pb2 import SocialPost

# What stands in place of words that their author or a moderator took back.
_REMOVED = frozenset({"[deleted]", "[removed]", "[deleted by user]", "[ Removed by Reddit ]"})
# The longest title Reddit takes; what cross-posting tools cut there goes on in the body, in the middle of a word.
_TITLE_CHARACTERS = 300


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
    if parent := data.identifier("crosspost_parent", required=False):
        post.repost_of = f"reddit:{parent}"
        parts += [original.text("selftext") for original in data.objects("crosspost_parent_list")[:1]]
    if not _REMOVED.intersection(parts):
        if kind == "t3" and len(parts[0]) == _TITLE_CHARACTERS and parts[0][-1] not in ".!?":
            parts[:2] = [parts[0] + parts[1]]
        post.text = clean("\n\n".join(words for part in parts if (words := plain(html.unescape(part)).strip())))
    author = data.text("author")
    if author != "[deleted]":
        post.author_id = data.text("author_fullname") or author
    post.engagement.likes = data.count("score")
    post.engagement.replies = data.count("num_comments")
    if permalink := data.text("permalink"):
        post.source_url = f"https://www.reddit.com{permalink}"
    return False
