from __future__ import annotations

import copy
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_svc.normalize import FUTURE_TOLERANCE_MS, normalize
from ingest_svc.sources.payloads.fields import INT32_MAX
from sentimesh.errors import MalformedMessageError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

NOW_MS = 1_760_000_100_000
Payload = dict[str, Any]

TWEET: Payload = {
    "data": {
        "id": "1976000000000000001",
        "text": "Q&amp;A: is $ETH ready? 👀",
        "created_at": "2025-10-09T08:53:20.123Z",
        "lang": "en",
        "author_id": "42",
        "public_metrics": {
            "like_count": 5,
            "retweet_count": 2,
            "quote_count": 1,
            "reply_count": 3,
            "impression_count": 900,
        },
    },
    "includes": {
        "users": [
            {"id": "41", "username": "other"},
            {
                "id": "42",
                "username": "ada_l",
                "created_at": "2015-01-02T03:04:05.000Z",
                "verified": True,
                "public_metrics": {"followers_count": 100, "following_count": 50, "tweet_count": 7},
            },
        ]
    },
}
COMMENT: Payload = {
    "kind": "t1",
    "data": {
        "id": "abc1",
        "name": "t1_abc1",
        "author": "satoshi_fan",
        "author_fullname": "t2_xyz",
        "created_utc": 1_760_000_000.0,
        "permalink": "/r/ethtrader/comments/zz/_/abc1/",
        "body": "I **like** ETH &amp;gt; BTC",
        "score": -4,
    },
}
THREAD: Payload = {
    "kind": "t3",
    "data": {
        "id": "zz9",
        "author": "satoshi_fan",
        "created_utc": 1_760_000_000.0,
        "title": "Is SOL done?",
        "selftext": "Asking for a [friend](https://example.org).",
        "score": 12,
        "num_comments": 8,
    },
}
CHANNEL_POST: Payload = {
    "_": "Message",
    "id": 77,
    "peer_id": {"_": "PeerChannel", "channel_id": 1234},
    "date": "2025-10-09T08:53:20+00:00",
    "message": "BTC\u200b above 120k",
    "post": True,
    "views": 3_000_000_000,
    "forwards": 4,
    "replies": {"replies": 2},
    "reactions": {"results": [{"count": 3}, {"count": 4}]},
}
# The author's id is of 2016-04-30 by its time bits.
CHAT: Payload = {
    "id": "1425000000000000000",
    "type": 0,
    "channel_id": "10",
    "guild_id": "20",
    "timestamp": "2025-10-09T08:53:20.500+00:00",
    "content": "**eth** <:pump:123456789> <@!99> soon",
    "author": {"id": "175928847299117063", "username": "nelly", "bot": False},
    "reactions": [{"count": 2}, {"count": 1}],
}
ALL = {"twitter": TWEET, "reddit": COMMENT, "telegram": CHANNEL_POST, "discord": CHAT}


def read(platform: str, payload: Payload, received_at_ms: int = NOW_MS) -> SocialPost:
    raw = RawPost(platform=platform, payload=orjson.dumps(payload), received_at_ms=received_at_ms)
    return normalize(raw, NOW_MS)[0]


def changed(payload: Payload, **data: object) -> Payload:
    """Return a copy with values set in its ``data`` (or itself, where it has none)."""
    changed = copy.deepcopy(payload)
    changed.get("data", changed).update(data)
    return changed


def test_a_post_on_x() -> None:
    post = read("twitter", TWEET)
    assert post == SocialPost(
        post_id="twitter:1976000000000000001",
        platform="twitter",
        text="Q&A: is $ETH ready? 👀",
        author_id="42",
        timestamp_ms=1_760_000_000_123,
        engagement=SocialPost.EngagementMetrics(likes=5, reposts=3, replies=3, views=900),
        author=SocialPost.AuthorMetrics(
            followers=100, following=50, account_created_ms=1_420_167_845_000, verified=True, total_posts=7
        ),
        source_url="https://x.com/ada_l/status/1976000000000000001",
        language="en",
        received_at_ms=NOW_MS,
        ingested_at_ms=NOW_MS,
    )


def test_a_post_on_x_without_its_author() -> None:
    post = read("twitter", {"data": TWEET["data"]})
    assert not post.HasField("author")
    assert post.source_url == "https://x.com/i/web/status/1976000000000000001"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("en", "en"), ("und", ""), ("zxx", ""), ("qme", ""), ("in", "id"), ("zh-TW", "zh"), (None, "")],
)
def test_languages_of_x(code: str | None, expected: str) -> None:
    assert read("twitter", changed(TWEET, lang=code)).language == expected


def test_a_long_post_on_x_is_read_from_its_note() -> None:
    assert read("twitter", changed(TWEET, note_tweet={"text": "all of it"})).text == "all of it"


def test_a_repost_without_its_original_loses_prefix_and_cut_word() -> None:
    payload = changed(
        TWEET,
        text="RT @someone: ETH is going to the moon and bit…",
        referenced_tweets=[{"type": "retweeted", "id": "9"}],
    )
    post = read("twitter", payload)
    assert (post.post_id, post.repost_of) == ("twitter:1976000000000000001", "twitter:9")
    assert post.text == "ETH is going to the moon and"
    assert post.author_id == "42"


def test_a_repost_has_text_and_counts_of_the_original_where_it_is_included() -> None:
    payload = changed(TWEET, text="RT @someone: ETH…", referenced_tweets=[{"type": "retweeted", "id": "9"}])
    payload["includes"]["tweets"] = [{"id": "9", "text": "ETH and bitcoin", "public_metrics": {"like_count": 800}}]
    post = read("twitter", payload)
    assert (post.repost_of, post.text, post.engagement.likes) == ("twitter:9", "ETH and bitcoin", 800)


def test_a_repost_of_a_quote_repeats_the_quote() -> None:
    references = [{"type": "quoted", "id": "8"}, {"type": "retweeted", "id": "9"}]
    post = read("twitter", changed(TWEET, text="RT @a: so true", referenced_tweets=references))
    assert (post.repost_of, post.quote_of) == ("twitter:9", "")


def test_a_quote_with_words_is_a_post_and_without_a_repost() -> None:
    quoted = [{"type": "quoted", "id": "9"}]
    post = read("twitter", changed(TWEET, text="no way https://t.co/a", referenced_tweets=quoted))
    assert (post.quote_of, post.repost_of) == ("twitter:9", "")
    bare = changed(TWEET, text="https://t.co/a", referenced_tweets=quoted)
    bare["includes"]["tweets"] = [{"id": "9", "text": "the original"}]
    post = read("twitter", bare)
    assert (post.quote_of, post.repost_of, post.text) == ("", "twitter:9", "the original")


def test_a_reddit_comment() -> None:
    post = read("reddit", COMMENT)
    assert post == SocialPost(
        post_id="reddit:t1_abc1",
        platform="reddit",
        text="I like ETH > BTC",
        author_id="t2_xyz",
        timestamp_ms=1_760_000_000_000,
        engagement=SocialPost.EngagementMetrics(),
        source_url="https://www.reddit.com/r/ethtrader/comments/zz/_/abc1/",
        received_at_ms=NOW_MS,
        ingested_at_ms=NOW_MS,
    )


def test_a_reddit_post_is_its_title_and_body() -> None:
    post = read("reddit", THREAD)
    assert (post.post_id, post.text) == ("reddit:t3_zz9", "Is SOL done?\n\nAsking for a friend .")
    assert (post.author_id, post.engagement.likes, post.engagement.replies) == ("satoshi_fan", 12, 8)


def test_a_title_cut_at_its_limit_goes_on_in_the_body() -> None:
    words = "stake " * 60
    title, body = words[:298] + "bi", "tcoin too"
    assert read("reddit", changed(THREAD, title=title, selftext=body)).text.endswith("stake stakbitcoin too")
    finished = "x" * 299 + "."
    assert read("reddit", changed(THREAD, title=finished, selftext="Body")).text == finished + "\n\nBody"


@pytest.mark.parametrize("marker", ["[deleted]", "[removed]", "[deleted by user]"])
def test_words_taken_back_are_not_kept(marker: str) -> None:
    assert read("reddit", changed(COMMENT, body=marker)).text == ""
    assert read("reddit", changed(THREAD, selftext=marker)).text == ""
    assert read("reddit", changed(THREAD, author="[deleted]")).author_id == ""


def test_a_crosspost_repeats_its_parent() -> None:
    payload = changed(
        THREAD, selftext="", crosspost_parent="t3_first", crosspost_parent_list=[{"selftext": "the words"}]
    )
    post = read("reddit", payload)
    assert (post.repost_of, post.text) == ("reddit:t3_first", "Is SOL done?\n\nthe words")


def test_a_telegram_message() -> None:
    post = read("telegram", CHANNEL_POST)
    assert (post.post_id, post.text, post.author_id) == ("telegram:1234/77", "BTC above 120k", "-1001234")
    assert post.engagement == SocialPost.EngagementMetrics(likes=7, reposts=4, replies=2, views=INT32_MAX)
    assert not post.HasField("author")
    assert post.source_url == "https://t.me/c/1234/77"
    forward = changed(CHANNEL_POST, fwd_from={"from_id": {"channel_id": 55}, "channel_post": 6})
    assert read("telegram", forward).repost_of == "telegram:55/6"
    group = changed(CHANNEL_POST, peer_id={"chat_id": 5}, from_id={"_": "PeerUser", "user_id": 8})
    post = read("telegram", group)
    assert (post.post_id, post.author_id, post.source_url) == ("telegram:5/77", "8", "")
    assert read("telegram", changed(CHANNEL_POST, _="MessageService", message=None)).text == ""


def test_a_discord_message() -> None:
    post = read("discord", CHAT)
    assert (post.post_id, post.text, post.engagement.likes) == ("discord:1425000000000000000", "eth :pump: soon", 3)
    assert post.author == SocialPost.AuthorMetrics(account_created_ms=1_462_015_105_796)
    assert post.source_url == "https://discord.com/channels/20/10/1425000000000000000"
    # A notice that Discord writes (7: somebody joined).
    assert read("discord", changed(CHAT, type=7)).text == ""
    # An id of later than the message says nothing about the account.
    assert not read("discord", changed(CHAT, author={"id": "9" * 19})).HasField("author")


def test_a_discord_forward_repeats_what_it_forwards() -> None:
    payload = changed(
        CHAT, content="", message_reference={"message_id": "5"}, message_snapshots=[{"message": {"content": "buy sol"}}]
    )
    post = read("discord", payload)
    assert (post.repost_of, post.text) == ("discord:5", "buy sol")
    answer = read("discord", changed(CHAT, type=19, message_reference={"message_id": "5"}))
    assert (answer.repost_of, answer.text) == ("", "eth :pump: soon")


@pytest.mark.parametrize(("flag", "expected"), [(True, True), (False, False), (None, False)])
def test_discord_says_who_is_a_bot(flag: bool | None, expected: bool) -> None:
    payload = changed(CHAT, author={"id": "1", "bot": flag})
    raw = RawPost(platform="discord", payload=orjson.dumps(payload), received_at_ms=NOW_MS)
    assert normalize(raw, NOW_MS)[1] is expected


@pytest.mark.parametrize(
    ("platform", "payload", "field"),
    [
        ("twitter", {}, "payload.data is missing"),
        ("twitter", changed(TWEET, id=None), "payload.data.id is missing"),
        ("twitter", changed(TWEET, id=True), "payload.data.id is a boolean"),
        ("twitter", changed(TWEET, author_id=""), "payload.data.author_id"),
        ("twitter", changed(TWEET, id="1\r\nX: y"), "payload.data.id is a string, expected an id"),
        ("twitter", changed(TWEET, text=7), "payload.data.text is a number, expected a string"),
        ("twitter", changed(TWEET, created_at="yesterday"), "payload.data.created_at is a string, expected an ISO"),
        ("twitter", changed(TWEET, created_at=None), "payload.data.created_at is missing"),
        ("twitter", changed(TWEET, public_metrics={"like_count": "5"}), "public_metrics.like_count is a string"),
        ("twitter", changed(TWEET, referenced_tweets={}), "referenced_tweets is an object, expected a list"),
        ("twitter", changed(TWEET, referenced_tweets=[{"type": "quoted"}]), r"referenced_tweets\[0\].id is missing"),
        ("reddit", changed(COMMENT, created_utc=None), "payload.data.created_utc is missing"),
        ("reddit", changed(COMMENT, created_utc=-5), "payload.data.created_utc is a number, expected a time"),
        ("reddit", {"kind": "t5", "data": {}}, "payload.kind is a string, expected t1"),
        ("reddit", {"kind": "t1"}, "payload.data is missing"),
        ("telegram", changed(CHANNEL_POST, peer_id=None), "payload.peer_id is missing"),
        ("telegram", changed(CHANNEL_POST, peer_id={}), "payload.peer_id.user_id is missing"),
        ("telegram", changed(CHANNEL_POST, date=[]), "payload.date is a list"),
        ("discord", changed(CHAT, author=None), "payload.author is missing"),
        ("discord", changed(CHAT, channel_id=None), "payload.channel_id is missing"),
        ("discord", changed(CHAT, timestamp=None), "payload.timestamp is missing"),
    ],
)
def test_what_is_missing_or_of_the_wrong_type_is_named(platform: str, payload: Payload, field: str) -> None:
    with pytest.raises(MalformedMessageError, match=field):
        read(platform, payload)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (RawPost(platform="myspace", payload=b"{}"), "platform is 'myspace', expected twitter"),
        (RawPost(platform="twitter", payload=b"\xff"), "payload is not JSON"),
        (RawPost(platform="twitter", payload=b'{"a": "\\ud83d"}'), "payload is not JSON"),
        (RawPost(platform="twitter", payload=b"[]"), "payload is a list, expected an object"),
        (RawPost(platform="twitter"), "payload is not JSON"),
    ],
)
def test_what_is_no_payload_is_refused(raw: RawPost, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        normalize(raw, NOW_MS)


def test_a_post_from_the_future_is_refused() -> None:
    time_ms = 1_760_000_000_123
    assert read("twitter", TWEET, time_ms - FUTURE_TOLERANCE_MS).timestamp_ms == time_ms
    with pytest.raises(MalformedMessageError, match="5 minutes after it was received"):
        read("twitter", TWEET, time_ms - FUTURE_TOLERANCE_MS - 1)


def test_counts_are_clamped() -> None:
    metrics = {"like_count": 10**18, "retweet_count": INT32_MAX, "quote_count": 5, "reply_count": -3}
    engagement = read("twitter", changed(TWEET, public_metrics=metrics)).engagement
    assert (engagement.likes, engagement.reposts, engagement.replies) == (INT32_MAX, INT32_MAX, 0)


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def paths(value: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [here, *(path for key in value for path in paths(value[key], (*here, key)))]
    if isinstance(value, list):
        return [here, *(path for index, item in enumerate(value) for path in paths(item, (*here, index)))]
    return [here]


@given(st.data())
def test_any_field_of_any_value_is_read_or_refused(data: st.DataObject) -> None:
    platform = data.draw(st.sampled_from(sorted(ALL)))
    payload = copy.deepcopy(ALL[platform])
    *way, last = data.draw(st.sampled_from([path for path in paths(payload) if path]))
    inside: Any = payload
    for step in way:
        inside = inside[step]
    inside[last] = data.draw(values)
    try:
        post = read(platform, payload)
    except MalformedMessageError:
        return
    assert post.post_id.startswith(f"{platform}:")
    assert SocialPost.FromString(post.SerializeToString()) == post


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "count"),
    [("reddit-2025-10", 11_275), ("discord-ethglobal-2025", 513), ("telegram-pump-channels-2024", 31_277)],
)
def test_every_recorded_post_is_read(recorded_data: Path, name: str, count: int) -> None:
    seen = 0
    with gzip.open(recorded_data / "posts" / f"{name}.jsonl.gz") as lines:
        for line in lines:
            record = orjson.loads(line)
            post = read(record["platform"], record["payload"], record["received_at_ms"])
            assert post.timestamp_ms == record["received_at_ms"]
            assert len(post.text) <= 1000
            seen += 1
    assert seen == count
