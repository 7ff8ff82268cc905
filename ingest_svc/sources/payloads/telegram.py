"""A Telegram message as Telethon's ``Message.to_dict()``, times as ISO 8601."""

from __future__ import annotations

from ingest_svc.sources.payloads.fields import INT32_MAX, Fields
from ingest_svc.text import clean
from sentimesh.pb.social_sentiment_pb2 import SocialPost


def read(payload: Fields, post: SocialPost) -> bool:
    """Fill ``post``; never written by a declared bot. Raises MalformedMessageError."""
    peer = payload.object("peer_id")
    if peer is None:
        raise payload.fail("peer_id", "an object")
    channel = next(
        (found for kind in ("channel_id", "chat_id") if (found := peer.identifier(kind, required=False))), ""
    )
    channel = channel or peer.identifier("user_id")
    message_id = payload.identifier("id")
    post.post_id = f"telegram:{channel}/{message_id}"
    post.timestamp_ms = payload.time_ms("date")
    post.text = clean(payload.text("message"))
    post.author_id = _sender(payload, peer)
    post.engagement.views = payload.count("views")
    post.engagement.reposts = payload.count("forwards")
    if replies := payload.object("replies"):
        post.engagement.replies = replies.count("replies")
    if reactions := payload.object("reactions"):
        post.engagement.likes = min(sum(item.count("count") for item in reactions.objects("results")), INT32_MAX)
    forwarded = payload.object("fwd_from")
    origin = forwarded.object("from_id") if forwarded else None
    if forwarded and origin and (number := forwarded.identifier("channel_post", required=False)):
        post.repost_of = f"telegram:{origin.identifier('channel_id')}/{number}"
    if peer.identifier("channel_id", required=False):
        post.source_url = f"https://t.me/c/{channel}/{message_id}"
    return False


def _sender(payload: Fields, peer: Fields) -> str:
    """Return who wrote a message, as Telethon's ``sender_id``: a broadcast channel writes its posts itself.

    Channels have the marked id of the Bot API, -100 before their number, so that none is taken for a user.
    """
    sender = payload.object("from_id")
    if sender is None and (payload.flag("post") or not payload.flag("out")):
        sender = peer
    if sender is None:
        return ""
    if channel := sender.identifier("channel_id", required=False):
        return f"-100{channel}"
    return sender.identifier("user_id", required=False)
