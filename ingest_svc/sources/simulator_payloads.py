"""The simulated posts as each platform's own API or client library gives them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest_svc.sources.payloads.discord import EPOCH_MS as DISCORD_EPOCH_MS
from ingest_svc.sources.simulator_people import DAY_MS, Author

# X's ids carry their time as Discord's do, from this epoch (its Snowflake announcement, 2010).
TWITTER_EPOCH_MS = 1_288_834_974_657
RETWEET_CHARACTERS = 140
SUBREDDITS = ("CryptoCurrency", "Bitcoin", "ethtrader", "CryptoMarkets", "SatoshiStreetBets")
# Channels are numbered from here, and these are the groups that everybody writes in.
CHANNEL_ID = 1_000_000_000
GROUP_IDS = (999_000_001, 999_000_002, 999_000_003)
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Written:
    """A post that exists: its payload, and what others need to refer to it."""

    platform: str
    payload: dict[str, Any]
    post_id: str
    native_id: str
    at_ms: int
    text: str
    author: Author


class Payloads:
    """Makes payloads; ids are unique within one simulation."""

    def __init__(self, rng: random.Random, start_ms: int) -> None:
        self._rng = rng
        self._start_ms = start_ms
        self._made = 0
        self._message_ids: dict[int, int] = {}

    def tweet(
        self,
        now_ms: int,
        author: Author,
        text: str,
        language: str = "en",
        references: list[dict[str, str]] | None = None,
        includes: list[dict[str, Any]] | None = None,
    ) -> Written:
        """Return a post on X with its author in ``includes.users``."""
        native_id = str(((now_ms - TWITTER_EPOCH_MS) << 22) | self._next() % 4096)
        data = self._tweet_data(native_id, now_ms, author, text, language)
        if references:
            data["referenced_tweets"] = references
        expanded: dict[str, Any] = {"users": [_user(author)]}
        if includes:
            expanded["tweets"] = includes
        payload = {"data": data, "includes": expanded}
        return Written("twitter", payload, f"twitter:{native_id}", native_id, now_ms, text, author)

    def unseen(self, now_ms: int, author: Author, text: str) -> Written:
        """Return a post on X from before now that the simulation never yields."""
        return self.tweet(now_ms - self._rng.randint(60_000, 3_600_000), author, text)

    def retweet(self, now_ms: int, author: Author, original: Written) -> Written:
        """Return a retweet, cut as X cuts it; half of them with the whole original in ``includes.tweets``."""
        text = f"RT @{original.author.name}: {original.text}"
        if len(text) > RETWEET_CHARACTERS:
            text = text[: RETWEET_CHARACTERS - 1] + "…"
        references = [{"type": "retweeted", "id": original.native_id}]
        includes = [original.payload["data"]] if self._rng.random() < 0.5 else None
        return self.tweet(now_ms, author, text, references=references, includes=includes)

    def reply(self, now_ms: int, author: Author, text: str, original: Written) -> Written:
        """Return a reply on X."""
        references = [{"type": "replied_to", "id": original.native_id}]
        return self.tweet(now_ms, author, f"@{original.author.name} {text}", references=references)

    def quote(self, now_ms: int, author: Author, text: str, original: Written) -> Written:
        """Return a quoting post on X; ``text`` may be empty."""
        references = [{"type": "quoted", "id": original.native_id}]
        link = f"https://t.co/{_base36(self._next() + 10**9)}"
        return self.tweet(now_ms, author, f"{text} {link}".strip(), references=references)

    def reddit_post(self, now_ms: int, author: Author, title: str, body: str) -> Written:
        """Return a Reddit post (t3)."""
        return self._reddit("t3", now_ms, author, {"title": title, "selftext": body, "num_comments": self._few(2)})

    def reddit_comment(self, now_ms: int, author: Author, body: str) -> Written:
        """Return a Reddit comment (t1)."""
        return self._reddit("t1", now_ms, author, {"body": body})

    def telegram(self, now_ms: int, channel: Author, text: str) -> Written:
        """Return a message of a broadcast channel."""
        views = int(channel.followers * self._rng.uniform(0.05, 0.6))
        seen = {"post": True, "views": views, "forwards": self._few(views / 200)}
        return self._telegram(now_ms, CHANNEL_ID + channel.number, channel, text, seen)

    def telegram_group(self, now_ms: int, author: Author, text: str) -> Written:
        """Return a message of somebody in a group."""
        group_id = self._rng.choice(GROUP_IDS)
        sender = {"from_id": {"_": "PeerUser", "user_id": author.number}, "post": False}
        return self._telegram(now_ms, group_id, author, text, sender)

    def _telegram(self, now_ms: int, peer: int, author: Author, text: str, fields: dict[str, Any]) -> Written:
        second = now_ms // 1000
        number = self._message_ids[peer] = self._message_ids.get(peer, 1000) + 1
        payload = {
            "_": "Message",
            "id": number,
            "peer_id": {"_": "PeerChannel", "channel_id": peer},
            "date": datetime.fromtimestamp(second, UTC).isoformat(),
            "message": text,
        } | fields
        native_id = f"{peer}/{number}"
        return Written("telegram", payload, f"telegram:{native_id}", native_id, second * 1000, text, author)

    def discord(self, now_ms: int, author: Author, text: str, answered: Written | None) -> Written:
        """Return a Discord message, a reply to ``answered`` where given."""
        native_id = str(((now_ms - DISCORD_EPOCH_MS) << 22) | self._next() % 4096)
        likes = self._few(0.5)
        payload: dict[str, Any] = {
            "id": native_id,
            "type": 19 if answered else 0,
            "channel_id": "900000000000000001",
            "guild_id": "900000000000000000",
            "timestamp": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "content": text,
            "author": {
                "id": author_id("discord", author),
                "username": author.name,
                "bot": False,
            },
            "reactions": [{"count": likes, "emoji": {"name": "🔥"}}] if likes else [],
        }
        if answered:
            payload["message_reference"] = {"message_id": answered.native_id, "channel_id": "900000000000000001"}
        return Written("discord", payload, f"discord:{native_id}", native_id, now_ms, text, author)

    def _reddit(self, kind: str, now_ms: int, author: Author, content: dict[str, Any]) -> Written:
        second = now_ms // 1000
        native_id = _base36(self._start_ms // 1000 * 10_000 + self._next())
        subreddit = self._rng.choice(SUBREDDITS)
        data = {
            "id": native_id,
            "name": f"{kind}_{native_id}",
            "author": author.name,
            "author_fullname": author_id("reddit", author),
            "created_utc": float(second),
            "subreddit": subreddit,
            "permalink": f"/r/{subreddit}/comments/{native_id}/",
            "score": 1 + self._few(4),
        } | content
        text = content.get("body") or content["title"]
        return Written(
            "reddit", {"kind": kind, "data": data}, f"reddit:{kind}_{native_id}", native_id, second * 1000, text, author
        )

    def _tweet_data(self, native_id: str, now_ms: int, author: Author, text: str, language: str) -> dict[str, Any]:
        reach = author.followers**0.6 * self._rng.lognormvariate(0, 1)
        return {
            "id": native_id,
            "text": text,
            "created_at": _zulu(now_ms),
            "lang": language,
            "author_id": str(author.number),
            "public_metrics": {
                "retweet_count": self._few(reach / 40),
                "reply_count": self._few(reach / 60),
                "like_count": self._few(reach / 8),
                "quote_count": self._few(reach / 200),
                "impression_count": self._few(reach * 5),
            },
        }

    def _few(self, mean: float) -> int:
        """Return a count with this mean (geometric: mostly small, sometimes large)."""
        return int(math.log(1 - self._rng.random()) / math.log(mean / (1 + mean))) if mean > 0 else 0

    def _next(self) -> int:
        self._made += 1
        return self._made


def author_id(platform: str, author: Author) -> str:
    """Return the id under which a platform's payload names an author; of Telegram, that of a channel."""
    match platform:
        case "reddit":
            return f"t2_{_base36(author.number)}"
        case "telegram":
            return f"-100{CHANNEL_ID + author.number}"
        case "discord":
            created_ms = max(author.created_ms, DISCORD_EPOCH_MS + author.number % DAY_MS)
            return str(((created_ms - DISCORD_EPOCH_MS) << 22) | author.number % (1 << 22))
    return str(author.number)


def _user(author: Author) -> dict[str, Any]:
    return {
        "id": str(author.number),
        "username": author.name,
        "created_at": _zulu(author.created_ms),
        "verified": author.verified,
        "public_metrics": {
            "followers_count": author.followers,
            "following_count": author.following,
            "tweet_count": author.posts,
            "listed_count": author.followers // 100,
        },
    }


def _zulu(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits
