"""An invented crowd on four platforms: seeded, endless, each post labelled with what it is."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from bisect import bisect
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import orjson

from ingest_svc.sources.pacing import Pacer
from ingest_svc.sources.simulator_bots import (
    BOT_SHARE,
    MINUTE_MS,
    BotPost,
    Bots,
    Campaign,
    Kind,
    arrivals,
    listed_bots,
    persistent_bots,
)
from ingest_svc.sources.simulator_payloads import Payloads, Written
from ingest_svc.sources.simulator_people import Author, Crowd, normal
from ingest_svc.sources.simulator_texts import PRICES, Words, casual, expand
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.source import SourcePost
from sentimesh.symbols import Asset, load_assets

__all__ = [
    "Campaign",
    "Kind",
    "SimulatedPost",
    "SimulatorSource",
    "Spike",
    "listed_bots",
    "persistent_bots",
    "simulate",
]

Label = Literal["human", "spike", "campaign", "bot"]
Turns = Iterator[tuple[float, Callable[[int], "SimulatedPost"]]]

# The first spike and campaign of a run without given ones, and how often they come again.
FIRST_SPIKE_MS, FIRST_CAMPAIGN_MS, PERIOD_MS = 10 * MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS
# Slow campaigns begin as often as the quick ones, until this many go on at once, each for the same time.
SLOW_CAMPAIGNS, SLOW_CAMPAIGN_MS, SLOW_ACCOUNTS = 16, 8 * 60 * MINUTE_MS, 60
# A spike is seen (spike_min_mentions, 10 in 60 s) also where the symbol is hardly mentioned otherwise.
MIN_SPIKE_POSTS_PER_MINUTE = 24.0
PLACE_SHARES = {"twitter": 0.55, "reddit": 0.17, "telegram": 0.06, "telegram_group": 0.06, "discord": 0.16}
CODE_CHARACTERS = "abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789"
# How far a price moves from one that is told to the next (standard deviation of its logarithm).
PRICE_STEP = 0.0005
PLACE_NAMES, PLACE_SUMS = list(PLACE_SHARES), [*itertools.accumulate(PLACE_SHARES.values())][:-1]
# Mood reverts to a symbol's own mean within about half an hour (Ornstein-Uhlenbeck process).
MOOD_TIME_MS, MOOD_SPREAD = 1_800_000, 0.45


@dataclass(frozen=True, slots=True)
class SimulatedPost:
    """A native payload and what it is; ``post_id`` and ``event_time_ms`` are those that ingest will find in it.

    ``kind`` says what sort of bot or campaign it is, empty for people:

    - bots: ``throwaway`` (accounts of days that follow thousands; some write all the time, some once), ``flood``
      (aged accounts, sold or stolen, that write every 20 to 60 seconds all of a sudden), ``shill_channel`` (a few
      texts again and again, on Telegram and Discord), ``listed`` (:func:`listed_bots`), ``persistent``
      (:func:`persistent_bots`: a few posts an hour, day after day, some of them again and again, followed by nearly
      nobody);
    - campaigns: ``young_campaign``, ``aged_campaign``, ``slow_campaign`` (:class:`Campaign`).
    """

    platform: str
    payload: dict[str, Any]
    label: Label
    event_time_ms: int
    post_id: str
    kind: Kind = ""


@dataclass(frozen=True, slots=True)
class Spike:
    """Many people at once about one symbol from ``at_ms`` (epoch): ``factor`` times its usual posts come on top.

    ``mood``: -1 (panic) to 1 (euphoria).
    """

    symbol: str
    at_ms: int
    duration_ms: int = 2 * MINUTE_MS
    factor: float = 12.0
    mood: float = 0.9


def simulate(
    seed: int,
    start_ms: int,
    symbols: Sequence[str],
    posts_per_minute: float = 120.0,
    duration_ms: int | None = None,
    spikes: Sequence[Spike] | None = None,
    campaigns: Sequence[Campaign] | None = None,
) -> Iterator[SimulatedPost]:
    """Yield posts in the order they are written; the same arguments give the same posts.

    ``posts_per_minute`` is the mean of chatter and bots; spikes and campaigns come on top. ``duration_ms`` None is
    endless. ``spikes`` and ``campaigns`` None have one of each every half hour, the first spike after ten minutes,
    the first campaign after five. Raises InvalidSymbolError, and ValueError without symbols or with a rate of 0.
    """
    if not symbols or posts_per_minute <= 0:
        raise ValueError("a simulation needs symbols and a positive number of posts a minute")
    return _Simulation(seed, start_ms, symbols, posts_per_minute).run(duration_ms, spikes, campaigns)


class _Simulation:
    def __init__(self, seed: int, start_ms: int, symbols: Sequence[str], posts_per_minute: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (a crowd, no secret)
        self._start_ms = start_ms
        self._rate = posts_per_minute
        self._assets = {asset.symbol: asset for asset in load_assets(symbols)}
        weights = [1 / (rank + 1) ** 0.8 for rank in range(len(self._assets))]
        self._shares = {symbol: weight / sum(weights) for symbol, weight in zip(self._assets, weights, strict=True)}
        self._symbols, self._symbol_sums = list(self._shares), list(itertools.accumulate(self._shares.values()))
        self._mentions = {symbol: mentions(asset) for symbol, asset in self._assets.items()}
        people = posts_per_minute * (1 - BOT_SHARE)
        self._crowd = Crowd(self._rng, start_ms, {place: people * share for place, share in PLACE_SHARES.items()})
        self._bots = Bots(self._rng, self._crowd, start_ms, self._say)
        self._payloads = Payloads(self._rng, start_ms)
        self._moods = {symbol: self._rng.gauss(0.1, 0.3) for symbol in self._assets}
        self._means = dict(self._moods)
        self._mood_times = dict.fromkeys(self._assets, start_ms)
        self._prices = {symbol: PRICES.get(symbol) or 10 ** self._rng.uniform(-1, 2) for symbol in self._assets}
        self._tweets: deque[Written] = deque(maxlen=200)
        self._messages: deque[Written] = deque(maxlen=50)

    def run(
        self, duration_ms: int | None, spikes: Sequence[Spike] | None, campaigns: Sequence[Campaign] | None
    ) -> Iterator[SimulatedPost]:
        end_ms = math.inf if duration_ms is None else self._start_ms + duration_ms
        streams = [self._chatter(), self._turns(self._bots.all(self._rate * BOT_SHARE))]
        streams += [self._all_spikes()] if spikes is None else [self._spike(spike) for spike in spikes]
        if campaigns is None:
            streams += [self._all_campaigns(), *(self._slow_campaigns(lane) for lane in range(SLOW_CAMPAIGNS))]
        else:
            streams += [self._campaign(item) for item in campaigns]
        # Each stream names the times of its posts; a post is made when its turn comes, so that it can refer to others.
        turns = heapq.merge(*streams, key=lambda turn: turn[0])
        for at_ms, write in itertools.takewhile(lambda turn: turn[0] < end_ms, turns):
            if at_ms >= self._start_ms:
                yield write(int(at_ms))

    def _chatter(self) -> Turns:
        times = arrivals(self._rng, self._start_ms, self._rate * (1 - BOT_SHARE))
        return ((at_ms, self._write_human) for at_ms in times)

    def _turns(self, posts: Iterable[BotPost]) -> Turns:
        for post in posts:
            yield post.at_ms, partial(self._write_bot, post)

    def _all_spikes(self) -> Turns:
        for number in itertools.count():
            symbol = self._pick_symbol()
            yield from self._spike(Spike(symbol, self._start_ms + FIRST_SPIKE_MS + number * PERIOD_MS))

    def _all_campaigns(self) -> Turns:
        for number in itertools.count():
            at_ms = self._start_ms + FIRST_CAMPAIGN_MS + number * PERIOD_MS
            kind: Kind = "aged_campaign" if number % 2 else "young_campaign"
            yield from self._campaign(Campaign(self._pick_symbol(), at_ms, kind=kind))

    def _slow_campaigns(self, lane: int) -> Turns:
        for number in itertools.count():
            at_ms = self._start_ms + FIRST_SPIKE_MS + lane * PERIOD_MS + number * SLOW_CAMPAIGN_MS
            yield from self._campaign(
                Campaign(self._pick_symbol(), at_ms, SLOW_CAMPAIGN_MS, SLOW_ACCOUNTS, kind="slow_campaign")
            )

    def _spike(self, spike: Spike) -> Turns:
        symbol = self._tracked(spike.symbol)
        per_minute = max(spike.factor * self._rate * self._shares[symbol], MIN_SPIKE_POSTS_PER_MINUTE)
        for at_ms in arrivals(self._rng, spike.at_ms, per_minute, spike.at_ms + spike.duration_ms):
            yield at_ms, partial(self._write_spike, symbol, spike.mood)

    def _campaign(self, campaign: Campaign) -> Turns:
        text = expand(self._rng, "campaign", self._words(self._tracked(campaign.symbol)))
        yield from self._turns(self._bots.campaign(campaign, text))

    def _tracked(self, text: str) -> str:
        symbol = load_assets([text])[0].symbol
        if symbol not in self._assets:
            raise ValueError(f"{symbol} is not among the simulated symbols {', '.join(self._assets)}")
        return symbol

    def _pick_symbol(self) -> str:
        return self._symbols[min(bisect(self._symbol_sums, self._rng.random()), len(self._symbols) - 1)]

    def _pick_place(self) -> str:
        return PLACE_NAMES[bisect(PLACE_SUMS, self._rng.random())]

    def _say(self, slot: str) -> str:
        return expand(self._rng, slot, self._words(self._pick_symbol()))

    def _words(self, symbol: str) -> Words:
        return Words(partial(self._word, symbol))

    def _word(self, symbol: str, slot: str) -> str:
        """Return words for a slot of ``GIVEN``."""
        rng = self._rng
        match slot:
            case "number":
                return str(int(3 * 100 ** rng.random()))
            case "coin":
                return rng.choice(self._mentions[symbol])
            case "price" | "level":
                price = self._prices[symbol] = self._prices[symbol] * math.exp(PRICE_STEP * normal(rng.random))
                return money(price) if slot == "price" else money(float(f"{price * rng.uniform(0.7, 1.6):.2g}"))
            case "percent":
                size = 2 * 30 ** rng.random()
                return f"{size:.1f}%" if rng.random() < 0.5 else f"{size:.0f}%"
            case "money":
                size = 20 * 2000 ** rng.random()
                return f"${float(f'{size:.2g}'):,.0f}"
        return "".join(rng.choices(CODE_CHARACTERS, k=10))

    def _mood(self, symbol: str, now_ms: int) -> float:
        elapsed = max(now_ms - self._mood_times[symbol], 0) / MOOD_TIME_MS
        self._mood_times[symbol] = max(now_ms, self._mood_times[symbol])
        decay = math.exp(-elapsed)
        drift = MOOD_SPREAD * math.sqrt(1 - decay * decay) * normal(self._rng.random)
        mood = self._means[symbol] + (self._moods[symbol] - self._means[symbol]) * decay + drift
        self._moods[symbol] = mood
        return max(-1.0, min(1.0, mood))

    def _opinion(self, symbol: str, mood: float) -> str:
        draw = 2 * self._rng.random()
        kind = "bullish" if draw < 0.65 * (1 + mood) else "bearish" if draw < 1.3 else "neutral"
        return casual(self._rng, expand(self._rng, kind, self._words(symbol)))

    def _write_human(self, now_ms: int) -> SimulatedPost:
        rng = self._rng
        place = self._pick_place()
        author = self._crowd.pick(place)
        symbol = self._pick_symbol()
        draw = rng.random()
        if draw < 0.06:
            text = casual(rng, expand(rng, "chatter", self._words(symbol)))
        elif draw < 0.08 and place == "twitter":
            text = expand(rng, "foreign", self._words(symbol))
            return self._tweet(now_ms, author, text, "human", language="es")
        elif draw < 0.09 and place == "reddit":
            return _post(self._payloads.reddit_comment(now_ms, author, "[removed]"), "human")
        elif draw < 0.105 and place != "twitter" and self._tweets:
            text = rng.choice(self._tweets).text
        else:
            text = self._opinion(symbol, self._mood(symbol, now_ms))
            if rng.random() < 0.08 and len(self._assets) > 1:
                other = self._pick_symbol()
                text += f" {rng.choice(('also in', 'same with', 'vs', 'and watching'))} ${other}"
        return self._publish(now_ms, place, author, text, "human")

    def _write_spike(self, symbol: str, mood: float, now_ms: int) -> SimulatedPost:
        place = self._pick_place()
        author = self._crowd.pick(place)
        if mood > 0 and self._rng.random() < 0.7:
            text = casual(self._rng, expand(self._rng, "spike", self._words(symbol)))
        else:
            text = self._opinion(symbol, mood)
        return self._publish(now_ms, place, author, text, "spike", original=True)

    def _write_bot(self, post: BotPost, now_ms: int) -> SimulatedPost:
        label: Label = "campaign" if post.kind.endswith("campaign") else "bot"
        match post.platform:
            case "telegram":
                written = self._payloads.telegram(now_ms, post.author, post.text)
            case "discord":
                written = self._payloads.discord(now_ms, post.author, post.text, None)
            case "reddit":
                written = self._payloads.reddit_comment(now_ms, post.author, post.text)
            case _:
                written = self._payloads.tweet(now_ms, post.author, post.text)
        return _post(written, label, post.kind)

    def _publish(
        self, now_ms: int, place: str, author: Author, text: str, label: Label, *, original: bool = False
    ) -> SimulatedPost:
        rng = self._rng
        draw = rng.random()
        match place:
            case "twitter" if original or draw < 0.62 or not self._tweets:
                return self._tweet(now_ms, author, text, label)
            case "twitter" if draw < 0.78:
                unseen = rng.random() < 0.15
                source = self._payloads.unseen(now_ms, self._crowd.pick("twitter"), text) if unseen else None
                return _post(self._payloads.retweet(now_ms, author, source or self._recent()), label)
            case "twitter" if draw < 0.93:
                return _post(self._payloads.reply(now_ms, author, text, self._recent()), label)
            case "twitter":
                comment = "" if rng.random() < 0.2 else text
                return _post(self._payloads.quote(now_ms, author, comment, self._recent()), label)
            case "reddit" if draw < 0.3:
                body = expand(rng, "body", self._words(self._pick_symbol()))
                return _post(self._payloads.reddit_post(now_ms, author, text, body), label)
            case "reddit":
                return _post(self._payloads.reddit_comment(now_ms, author, text), label)
            case "telegram_group":
                return _post(self._payloads.telegram_group(now_ms, author, text), label)
            case "telegram":
                return _post(self._payloads.telegram(now_ms, author, text), label)
        answered = rng.choice(self._messages) if self._messages and draw < 0.35 else None
        written = self._payloads.discord(now_ms, author, text, answered)
        self._messages.append(written)
        return _post(written, label)

    def _tweet(self, now_ms: int, author: Author, text: str, label: Label, *, language: str = "en") -> SimulatedPost:
        written = self._payloads.tweet(now_ms, author, text, language)
        self._tweets.append(written)
        return _post(written, label)

    def _recent(self) -> Written:
        """Return a recent post on X; few get most of the attention."""
        return self._tweets[int(len(self._tweets) * self._rng.random() ** 3)]


def mentions(asset: Asset) -> list[str]:
    """Return the ways in which people name an asset, none that needs its context to be understood."""
    symbol = asset.symbol
    ways = [f"${symbol}", f"${symbol}", f"${symbol.lower()}", f"#{symbol}", f"{symbol}/USDT"]
    if not asset.is_english_word:
        ways += [symbol, symbol, symbol.lower()]
    return ways + [form for name, ambiguous in asset.names[:1] if not ambiguous for form in (name, name.title())]


def money(value: float) -> str:
    """Return a price as people write it."""
    if value >= 1000:
        return f"${value / 1000:.3g}k" if value >= 10_000 else f"${value:,.0f}"
    return f"${value:.2f}" if value >= 1 else f"${value:.3g}"


def _post(written: Written, label: Label, kind: Kind = "") -> SimulatedPost:
    return SimulatedPost(written.platform, written.payload, label, written.at_ms, written.post_id, kind)


class SimulatorSource:
    """Implements ``sentimesh.source.Source`` over :func:`simulate`."""

    name = "simulator"

    def __init__(
        self,
        seed: int,
        symbols: Sequence[str],
        posts_per_minute: float = 120.0,
        start_ms: int | None = None,
        duration_ms: int | None = None,
        speed: float | None = 1.0,
        spikes: Sequence[Spike] | None = None,
        campaigns: Sequence[Campaign] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``start_ms`` None is the moment at which reading begins; ``speed``: event time over clock, None unpaced.

        Ingest refuses posts from the future: with a speed over 1, start so early that the last post is not.
        """
        self._seed = seed
        self._symbols = list(symbols)
        self._posts_per_minute = posts_per_minute
        self._start_ms = start_ms
        self._duration_ms = duration_ms
        self._speed = speed
        self._spikes = spikes
        self._campaigns = campaigns
        self._now_ms = now_ms

    async def posts(self) -> AsyncIterator[SourcePost]:
        """Yield the posts at the pace of their times."""
        pacer = Pacer(self._speed)
        start_ms = self._now_ms() if self._start_ms is None else self._start_ms
        for post in simulate(
            self._seed,
            start_ms,
            self._symbols,
            self._posts_per_minute,
            self._duration_ms,
            self._spikes,
            self._campaigns,
        ):
            await pacer.wait(post.event_time_ms)
            raw = RawPost(
                platform=post.platform,
                payload=orjson.dumps(post.payload),
                received_at_ms=self._now_ms(),
                source=self.name,
            )
            yield SourcePost(raw, f"simulator:{post.post_id}", post.event_time_ms)
