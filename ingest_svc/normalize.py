"""A platform's native payload to a normalised post without a symbol."""

from __future__ import annotations

import orjson

from ingest_svc.sources.payloads import discord, reddit, telegram, twitter
from ingest_svc.sources.payloads.fields import Fields
from sentimesh.errors import MalformedMessageError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

FUTURE_TOLERANCE_MS = 300_000
_READERS = {"twitter": twitter.read, "reddit": reddit.read, "telegram": telegram.read, "discord": discord.read}


def normalize(raw: RawPost, now_ms: int) -> tuple[SocialPost, bool]:
    """Return the post of a payload, and whether the platform says that a bot wrote it.

    The post has no symbol yet. Its text is empty where the author's words are deleted or there are none;
    ``repost_of`` is set for anything that only repeats another post. Raises MalformedMessageError, which names
    the field that is missing or of the wrong type.
    """
    reader = _READERS.get(raw.platform)
    if reader is None:
        raise MalformedMessageError(f"platform is {raw.platform!r}, expected twitter, reddit, telegram or discord")
    try:
        payload = Fields(orjson.loads(raw.payload), "payload")
    except orjson.JSONDecodeError as error:
        raise MalformedMessageError(f"payload is not JSON: {error}") from error
    received_at_ms = raw.received_at_ms if raw.received_at_ms > 0 else now_ms
    post = SocialPost(platform=raw.platform, received_at_ms=received_at_ms, ingested_at_ms=now_ms)
    bot = reader(payload, post)
    if post.timestamp_ms <= 0 or post.timestamp_ms > received_at_ms + FUTURE_TOLERANCE_MS:
        late = f"not after {received_at_ms + FUTURE_TOLERANCE_MS} (5 minutes after it was received)"
        raise MalformedMessageError(f"the post's time is {post.timestamp_ms} ms, expected one {late}")
    if not 0 < post.author.account_created_ms <= post.timestamp_ms:
        post.author.account_created_ms = 0
    if post.author == SocialPost.AuthorMetrics():
        post.ClearField("author")
    return post, bot
