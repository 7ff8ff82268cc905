"""What the filter has to tell from people: accounts that are bots, and campaigns of copied texts."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ingest_svc.sources.simulator_payloads import author_id
from ingest_svc.sources.simulator_people import DAY_MS, Author, Crowd, published
from ingest_svc.sources.simulator_texts import vary

Kind = Literal[
    "",
    "throwaway",
    "flood",
    "shill_channel",
    "listed",
    "persistent",
    "young_campaign",
    "aged_campaign",
    "slow_campaign",
]

MINUTE_MS = 60_000
# The part of all posts but spikes and campaigns that bots write.
BOT_SHARE = 0.05
# What part of the bots' posts each kind writes.
BOT_MIX = {"throwaway": 0.3, "flood": 0.25, "shill_channel": 0.2, "listed": 0.1, "persistent": 0.15}
# The part of the throwaway accounts' posts that comes from accounts which write once or twice.
RARE_SHARE = 0.5
# A busy bot writes every 20 to 60 seconds, for one to six hours: until its platform has noticed.
GAP_MS, SESSION_MS, POSTS_PER_MINUTE = (20_000, 60_000), (60 * MINUTE_MS, 360 * MINUTE_MS), 1.5
CHANNEL_POSTS_PER_HOUR, CHANNEL_TEXTS = 6, (2, 4)
# A persistent account has so many texts by heart; for one in four accounts each, this part of its posts is one of them.
PERSISTENT_POSTS_PER_HOUR, PITCHES, REPEATED = 4, 12, (0.2, 0.4, 0.6, 0.8)
SLOW_GAP_MS = (20 * MINUTE_MS, 90 * MINUTE_MS)
LISTED = 60
# Listed accounts were made in the five years after this (2016-01-01), whenever a simulation starts.
_LISTED_FROM_MS = 1_451_606_400_000


@dataclass(frozen=True, slots=True)
class BotPost:
    """What an account writes and when (epoch)."""

    at_ms: float
    platform: str
    author: Author
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Campaign:
    """One text about one symbol from ``at_ms`` (epoch), posted by many accounts with small edits.

    ``kind``: ``young_campaign`` or ``aged_campaign`` by their accounts; a ``slow_campaign`` has both, and posts every
    20 to 90 minutes while it lasts, at most ``posts``.
    """

    symbol: str
    at_ms: int
    duration_ms: int = 4 * MINUTE_MS
    accounts: int = 24
    posts: int = 40
    kind: Kind = "young_campaign"


def listed_bots() -> tuple[str, ...]:
    """Return the accounts of kind ``listed`` as ``{platform}:{author_id}``: the same in every simulation."""
    return tuple(f"{platform}:{author_id(platform, author)}" for platform, author in _listed())


def persistent_bots(posts_per_minute: float = 120.0) -> tuple[str, ...]:
    """Return the accounts of kind ``persistent`` as ``{platform}:{author_id}``: more of the same at a higher rate."""
    per_minute = posts_per_minute * BOT_SHARE * BOT_MIX["persistent"]
    return tuple(f"twitter:{author_id('twitter', author)}" for author in _persistent(per_minute, 0))


def _listed() -> list[tuple[str, Author]]:
    platforms = ("twitter", "twitter", "twitter", "discord", "reddit")
    made_ms = [_LISTED_FROM_MS + index * 611 % 1800 * DAY_MS for index in range(LISTED)]
    return [
        (platforms[index % 5], published(index, at_ms, 40 + 37 * index, 900 + 13 * index, 4000 + index * 1733 % 30_000))
        for index, at_ms in enumerate(made_ms)
    ]


def _persistent(per_minute: float, start_ms: int) -> list[Author]:
    """Return accounts of 20 to 170 days: young, but most of them not new."""
    accounts = []
    for index in range(max(3, round(60 * per_minute / PERSISTENT_POSTS_PER_HOUR))):
        days = 20 + index * 37 % 150
        followers, following = 20 + index * 29 % 90, 2000 + index * 613 % 3000
        accounts.append(published(LISTED + index, start_ms - days * DAY_MS, followers, following, 80 * days))
    return accounts


class Bots:
    """The bots of one simulation; each method yields posts in the order of their times, for ever unless it says so."""

    def __init__(self, rng: random.Random, crowd: Crowd, start_ms: int, say: Callable[[str], str]) -> None:
        """``say`` fills a slot of the grammar with words about a symbol of its choice."""
        self._rng = rng
        self._crowd = crowd
        self._start_ms = start_ms
        self._say = say

    def all(self, per_minute: float) -> Iterator[BotPost]:
        """Yield all kinds but campaigns, ``per_minute`` posts a minute."""
        rates = {kind: per_minute * share for kind, share in BOT_MIX.items()}
        return heapq.merge(
            self._throwaways_that_flood(rates["throwaway"] * (1 - RARE_SHARE)),
            self._rare_throwaways(rates["throwaway"] * RARE_SHARE),
            self._floods(rates["flood"]),
            self._channels(rates["shill_channel"]),
            self._listed(rates["listed"]),
            self._persistent(rates["persistent"]),
            key=lambda post: post.at_ms,
        )

    def campaign(self, campaign: Campaign, text: str) -> Iterator[BotPost]:
        """Yield the posts of a campaign, which ends."""
        rng = self._rng
        makers = {"young_campaign": (self._crowd.young,), "aged_campaign": (self._crowd.aged,)}
        kinds = makers.get(campaign.kind, (self._crowd.young, self._crowd.aged))
        accounts = [kinds[number % len(kinds)](campaign.at_ms) for number in range(campaign.accounts)]
        times = self._slow_times(campaign) if campaign.kind == "slow_campaign" else self._times(campaign)
        for number, at_ms in enumerate(times):
            yield BotPost(at_ms, "twitter", accounts[number % len(accounts)], vary(rng, text), campaign.kind)

    def _times(self, campaign: Campaign) -> list[float]:
        return sorted(campaign.at_ms + self._rng.uniform(0, campaign.duration_ms) for _ in range(campaign.posts))

    def _slow_times(self, campaign: Campaign) -> list[float]:
        gaps = (self._rng.uniform(*SLOW_GAP_MS) for _ in range(campaign.posts))
        times = itertools.accumulate(gaps, initial=float(campaign.at_ms))
        return list(itertools.takewhile(lambda at_ms: at_ms < campaign.at_ms + campaign.duration_ms, times))

    def _throwaways_that_flood(self, per_minute: float) -> Iterator[BotPost]:
        for at_ms, author, _ in self._sessions(per_minute, self._crowd.throwaway):
            yield BotPost(at_ms, "twitter", author, self._say("bot"), "throwaway")

    def _rare_throwaways(self, per_minute: float) -> Iterator[BotPost]:
        used: deque[Author] = deque(maxlen=20)
        for at_ms in self._arrivals(per_minute):
            again = used and self._rng.random() < 0.2
            author = self._rng.choice(used) if again else self._crowd.throwaway(at_ms)
            used.append(author)
            yield BotPost(at_ms, "twitter", author, self._say("bot"), "throwaway")

    def _floods(self, per_minute: float) -> Iterator[BotPost]:
        for at_ms, author, platform in self._sessions(per_minute, self._crowd.aged):
            yield BotPost(at_ms, platform, author, self._say("bot"), "flood")

    def _channels(self, per_minute: float) -> Iterator[BotPost]:
        rng = self._rng
        channels: list[tuple[str, Author, list[str], int]] = []
        for number in range(max(3, round(60 * per_minute / CHANNEL_POSTS_PER_HOUR))):
            platform = ("telegram", "telegram", "discord")[number % 3]
            channels.append((platform, self._crowd.aged(self._start_ms), [], rng.randint(*CHANNEL_TEXTS)))
        for at_ms in self._arrivals(per_minute):
            platform, author, texts, count = rng.choice(channels)
            yield BotPost(at_ms, platform, author, self._one_of(texts, count, "shill"), "shill_channel")

    def _one_of(self, texts: list[str], count: int, slot: str) -> str:
        """Return one of an account's ``count`` texts, made when it is first used."""
        at = int(self._rng.random() * count)
        if at < len(texts):
            return texts[at]
        texts.append(self._say(slot))
        return texts[-1]

    def _listed(self, per_minute: float) -> Iterator[BotPost]:
        accounts = _listed()
        for at_ms in self._arrivals(per_minute):
            platform, author = self._rng.choice(accounts)
            yield BotPost(at_ms, platform, author, self._say("bot"), "listed")

    def _persistent(self, per_minute: float) -> Iterator[BotPost]:
        rng = self._rng
        writers: list[tuple[Author, list[str], float]] = [
            (author, [], REPEATED[index % len(REPEATED)])
            for index, author in enumerate(_persistent(per_minute, self._start_ms))
        ]
        for at_ms in self._arrivals(per_minute):
            author, pitches, repeated = rng.choice(writers)
            text = self._one_of(pitches, PITCHES, "bot") if rng.random() < repeated else self._say("bot")
            yield BotPost(at_ms, "twitter", author, text, "persistent")

    def _sessions(self, per_minute: float, account: Callable[[float], Author]) -> Iterator[tuple[float, Author, str]]:
        """Yield what accounts write that each write a lot for a while, then nothing: time, account, platform."""
        lanes = math.ceil(per_minute / POSTS_PER_MINUTE)
        busy = per_minute / POSTS_PER_MINUTE / lanes
        return heapq.merge(*(self._lane(busy, account) for _ in range(lanes)), key=lambda post: post[0])

    def _lane(self, busy: float, account: Callable[[float], Author]) -> Iterator[tuple[float, Author, str]]:
        """Yield one session after another, with pauses, so that ``busy`` of the time is in one."""
        rng = random.Random(self._rng.getrandbits(64))  # noqa: S311 (its own, so that lanes do not disturb another)
        # In the midst of a session or of a pause, as at any other time.
        at_ms = self._start_ms - rng.uniform(0, sum(SESSION_MS) / 2 / busy)
        while True:
            author = account(at_ms)
            platform = rng.choices(("twitter", "discord", "reddit"), (0.7, 0.2, 0.1))[0]
            length_ms = rng.uniform(*SESSION_MS)
            end_ms = at_ms + length_ms
            while at_ms < end_ms:
                if at_ms >= self._start_ms:
                    yield at_ms, author, platform
                at_ms += rng.uniform(*GAP_MS)
            at_ms += length_ms * (1 / busy - 1)

    def _arrivals(self, per_minute: float) -> Iterator[float]:
        return arrivals(self._rng, self._start_ms, per_minute)


def arrivals(rng: random.Random, start_ms: float, per_minute: float, end_ms: float = math.inf) -> Iterator[float]:
    """Yield the times of a Poisson process."""
    own = random.Random(rng.getrandbits(64))  # noqa: S311 (its own, so that streams do not disturb another)
    at_ms = start_ms + own.expovariate(per_minute) * MINUTE_MS
    while at_ms < end_ms:
        yield at_ms
        at_ms += own.expovariate(per_minute) * MINUTE_MS
