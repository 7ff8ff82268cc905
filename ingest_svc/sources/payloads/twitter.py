"""A post of the X API v2 with ``includes.users`` and ``includes.tweets``."""

from __future__ import annotations

import re

from ingest_svc.sources.payloads.fields import INT32_MAX, Fields
from ingest_svc.text import clean, own_words
from sentimesh.pb.social_sentiment_pb2 import SocialPost

# What X puts into `lang` where there is no language, and the codes it uses that ISO 639-1 has replaced.
_NO_LANGUAGE = dict.fromkeys(("und", "qam", "qct", "qht", "qme", "qst", "zxx", "art"), "")
_LANGUAGES = _NO_LANGUAGE | {"in": "id", "iw": "he", "ji": "yi"}

_REPOST_PREFIX = re.compile(r"RT @\w{1,20}: ?")
_CUT_WORD = re.compile(r"\S*…$")


def read(payload: Fields, post: SocialPost) -> bool:
    """Fill ``post``; never written by a declared bot. Raises MalformedMessageError."""
    data = payload.object("data")
    if data is None:
        raise payload.fail("data", "an object")
    includes = payload.object("includes") or Fields({}, "payload.includes")
    known = {tweet.identifier("id"): tweet for tweet in includes.objects("tweets")}
    users = {user.identifier("id"): user for user in includes.objects("users")}
    native_id = data.identifier("id")
    post.post_id = f"twitter:{native_id}"
    post.author_id = data.identifier("author_id")
    post.timestamp_ms = data.time_ms("created_at")
    language = data.text("lang")
    post.language = _LANGUAGES.get(language, language.partition("-")[0].lower())
    references = {item.text("type"): item.identifier("id") for item in data.objects("referenced_tweets")}
    text = _full_text(data)
    counted = data
    original = references.get("retweeted")
    if original is None and (quoted := references.get("quoted")):
        if own_words(text):
            post.quote_of = f"twitter:{quoted}"
        else:
            original = quoted
    if original is not None:
        post.repost_of = f"twitter:{original}"
        counted = known.get(original, data)
        text = _full_text(counted) if original in known else _CUT_WORD.sub("", _REPOST_PREFIX.sub("", text, count=1))
    post.text = clean(text)
    if metrics := counted.object("public_metrics"):
        post.engagement.likes = metrics.count("like_count")
        post.engagement.reposts = min(metrics.count("retweet_count") + metrics.count("quote_count"), INT32_MAX)
        post.engagement.replies = metrics.count("reply_count")
        post.engagement.views = metrics.count("impression_count")
    user = users.get(post.author_id)
    name = "i/web"
    if user is not None:
        name = user.text("username") or name
        post.author.account_created_ms = user.time_ms("created_at", required=False)
        post.author.verified = user.flag("verified")
        if metrics := user.object("public_metrics"):
            post.author.followers = metrics.count("followers_count")
            # Followers that are not told are no zero to be held against whom the author follows.
            post.author.following = metrics.count("following_count") if metrics.has("followers_count") else 0
            post.author.total_posts = metrics.count("tweet_count")
    post.source_url = f"https://x.com/{name}/status/{native_id}"
    return False


def _full_text(tweet: Fields) -> str:
    note = tweet.object("note_tweet")
    return (note.text("text") if note else "") or tweet.text("text")
