"""A Discord message object."""

from __future__ import annotations

import re

from ingest_svc.sources.payloads.fields import INT32_MAX, Fields
from ingest_svc.sources.payloads.markdown import plain
from ingest_svc.text import clean
from sentimesh.pb.social_sentiment_pb2 import SocialPost

# Discord's ids carry their time: bits 22 and up are milliseconds since 2015-01-01 (its developer documentation,
# snowflakes).
EPOCH_MS = 1_420_070_400_000
# Default and reply (its developer documentation, message types); all others are notices that Discord writes.
_WRITTEN = (0, 19)

_CUSTOM_EMOJI = re.compile(r"<a?(:\w+:)\d+>")
_REFERENCE = re.compile(r"<(?:@[!&]?|#|/[^:>]+:|t:)[\w:-]+>")


def read(payload: Fields, post: SocialPost) -> bool:
    """Fill ``post``; return whether Discord says that a bot wrote it. Raises MalformedMessageError."""
    author = payload.object("author")
    if author is None:
        raise payload.fail("author", "an object")
    native_id, channel = payload.identifier("id"), payload.identifier("channel_id")
    post.post_id = f"discord:{native_id}"
    post.author_id = author.identifier("id")
    post.timestamp_ms = payload.time_ms("timestamp")
    text = payload.text("content")
    reference = payload.object("message_reference")
    snapshots = payload.objects("message_snapshots")
    if snapshots and reference and (original := reference.identifier("message_id", required=False)):
        forwarded = snapshots[0].object("message")
        post.repost_of = f"discord:{original}"
        text = forwarded.text("content") if forwarded else ""
    if payload.count("type") in _WRITTEN:
        post.text = clean(plain(_REFERENCE.sub(" ", _CUSTOM_EMOJI.sub(r"\1", text))))
    post.engagement.likes = min(sum(item.count("count") for item in payload.objects("reactions")), INT32_MAX)
    if post.author_id.isascii() and post.author_id.isdigit() and len(post.author_id) <= 20:
        post.author.account_created_ms = (int(post.author_id) >> 22) + EPOCH_MS
    guild = payload.identifier("guild_id", required=False) or "@me"
    post.source_url = f"https://discord.com/channels/{guild}/{channel}/{native_id}"
    return author.flag("bot")
