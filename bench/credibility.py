"""What the filter does with the recordings and with simulated posts: who is rejected, why, and what the scores are.

    python bench/credibility.py [--seed 3] [--minutes 5760] [--rate 60]

Posts go through ingest and the filter as they are, in memory, in the order of their recording. Every midnight of their
own clock what is known of their authors is learned from the week before it, as the daily job does; the simulator's
published list of bots is the only list. "Formula" is the four factors alone, in the same run.

A text is what is left of a post without case, links, mentions and punctuation; campaign: a text of ten or more posts
that reach the filter, reposts aside; a campaign's first three posts are let off. Rejected are those that do not
leave the filter; what ingest drops never reaches it. The Telegram channels are about coins that are not tracked, so
they come once more as if each post named BTC. Also checks that explanations agree with what was done.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from bench.vocabulary import recorded_raw_posts
from filter_svc.author_history import MemoryAuthorHistory
from filter_svc.credibility import account_age_days
from filter_svc.known_bots import MemoryKnownBots
from filter_svc.service import FilterStage
from ingest_svc.claims import MemoryClaims
from ingest_svc.service import IngestStage
from ingest_svc.sources.simulator import listed_bots, simulate
from ingest_svc.text import own_words
from sentimesh.author_history import DAY_MS, AuthorRecord, WeekOfAuthors
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityResponse, FilteredPost, RawPost, RejectedPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.stage import Delivery, Drop, Forward, Outcome
from sentimesh.symbols import TrackedExtractor, load_assets

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "posts"
TELEGRAM = "Telegram, 2024"
RECORDINGS = {
    "X, 2019": "twitter-btc-2019-10-15_19.jsonl.gz",
    TELEGRAM: "telegram-pump-channels-2024.jsonl.gz",
    "Reddit, 2025": "reddit-2025-10.jsonl.gz",
    "Discord, 2025": "discord-ethglobal-2025.jsonl.gz",
}
START_MS = 1_700_000_400_000
HOUR_MS = 3_600_000
BATCH = 256
CAMPAIGN_POSTS, LET_OFF = 10, 3
YEAR_DAYS = 365
NEUTRAL = 0.125
WORDS = re.compile(r"[^\W_]+")
FACTORS = ("account_age", "follower_ratio", "originality", "verification")
MIN_CREDIBILITY = 0.3
BOTS = ("bot", "campaign")


@dataclass(frozen=True, slots=True)
class Judged:
    """One post that reached the filter; ``reason`` is None where it passed, ``label`` the simulator's."""

    post: SocialPost
    text: str
    label: str
    reason: str | None
    explained: ExplainCredibilityResponse


@dataclass(frozen=True, slots=True)
class Run:
    """Everything of one source: what reached the filter, in order, and how many posts ingest dropped for what."""

    judged: list[Judged]
    read: int
    dropped: Counter[str]
    learned: Mapping[str, AuthorRecord]


def recorded(path: Path) -> Iterator[tuple[RawPost, str]]:
    """Yield a recording's posts, with no label."""
    return ((raw, "") for raw in recorded_raw_posts(path))


def simulated(seed: int, minutes: int, rate: float) -> Iterator[tuple[RawPost, str]]:
    """Yield simulated posts, with their labels."""
    for post in simulate(seed, START_MS, DEFAULT_SYMBOLS, rate, minutes * 60_000):
        payload = orjson.dumps(post.payload)
        label = f"{post.label} {post.kind}".strip()
        yield RawPost(platform=post.platform, payload=payload, received_at_ms=post.event_time_ms), label


def folded(text: str) -> str:
    """Return what makes two texts the same: their words."""
    return " ".join(WORDS.findall(unicodedata.normalize("NFKC", own_words(text)).casefold()))


class Everything(TrackedExtractor):
    """Finds BTC in every text."""

    def extract(self, texts: Sequence[str]) -> list[list[str]]:
        """Return BTC for each."""
        return [["BTC"] for _ in texts]


class Learning:
    """What is known of authors, learned anew every midnight that the posts' clock passes."""

    def __init__(self, listed: Collection[str]) -> None:
        self.bots = set(listed)
        self.multipliers: dict[str, float] = {}
        self.records: dict[str, AuthorRecord] = {}
        self._listed = listed
        self._week = WeekOfAuthors()
        self._next_ms = 0

    def until(self, now_ms: int) -> None:
        """Learn what was due before now."""
        while self._next_ms and self._next_ms <= now_ms:
            self.records = {record.author: record for record in self._week.judge(self._next_ms, self.records)}
            self.bots.clear()
            self.bots.update(self._listed, (name for name, record in self.records.items() if record.is_known_bot))
            self.multipliers.clear()
            self.multipliers.update((name, record.multiplier) for name, record in self.records.items())
            self._next_ms += DAY_MS
        self._next_ms = self._next_ms or (now_ms // DAY_MS + 1) * DAY_MS

    def take(self, outcome: Outcome) -> None:
        """Take what became of a post."""
        message = (
            outcome.record if isinstance(outcome, Drop) else outcome.message if isinstance(outcome, Forward) else None
        )
        if isinstance(message, FilteredPost | RejectedPost):
            self._week.add(message)


async def run(
    posts: Iterable[tuple[RawPost, str]],
    extractor: type[TrackedExtractor] = TrackedExtractor,
    listed: Collection[str] = (),
) -> Run:
    """Send posts through ingest and filter; a post of several symbols counts once."""
    ingest = IngestStage(
        extractor(load_assets(DEFAULT_SYMBOLS)), MemoryClaims(limit=1_000_000), ["en"], lambda: START_MS
    )
    learning = Learning(listed)
    stage, explaining = (
        FilterStage(MemoryKnownBots(learning.bots), history=MemoryAuthorHistory(learning.multipliers)) for _ in range(2)
    )
    judged, dropped = list[Judged](), Counter[str]()
    mentions: list[tuple[SocialPost, str]] = []
    number = 0
    for number, (raw, label) in enumerate(posts, 1):
        [outcomes] = await ingest.process([Delivery(raw, number)])
        for outcome in outcomes[:1]:
            if isinstance(outcome, Forward) and isinstance(outcome.message, SocialPost):
                mentions.append((outcome.message, label))
            else:
                dropped[outcome.reason if isinstance(outcome, Drop) else "rejected"] += 1
    for start in range(0, len(mentions), BATCH):
        batch = mentions[start : start + BATCH]
        learning.until(batch[0][0].timestamp_ms)
        outcomes_of = await stage.process([Delivery(post, start + at) for at, (post, _) in enumerate(batch, 1)])
        for (post, label), [outcome] in zip(batch, outcomes_of, strict=True):
            reason = outcome.reason if isinstance(outcome, Drop) else None
            learning.take(outcome)
            explained = await explaining.explain(post)
            assert explained.drop_reason == (reason or ""), f"{post.post_id} is explained with another end than it has"
            judged.append(Judged(post, folded(post.text), label, reason, explained))
    return Run(judged, number, dropped, learning.records)


def proportion(hits: Sequence[bool]) -> str:
    """Return how many of these are true."""
    return f"{sum(hits):>7,} of {len(hits):>7,}  {sum(hits) / len(hits):7.2%}" if hits else "none of these"


def campaigns(run: Run) -> None:
    """Print what becomes of copies and of what nobody copied."""
    originals = [item for item in run.judged if not item.post.repost_of and item.text]
    copies: defaultdict[str, list[Judged]] = defaultdict(list)
    for item in originals:
        copies[item.text].append(item)
    flooded = [items for items in copies.values() if len(items) >= CAMPAIGN_POSTS]
    late = [item for items in flooded for item in items[LET_OFF:]]
    soon = [item for items in flooded for item in _soon(items)[LET_OFF:]]
    single = [items[0] for items in copies.values() if len(items) == 1]
    old = [item for item in single if (account_age_days(item.post) or 0) > YEAR_DAYS]
    unknown = [item for item in single if account_age_days(item.post) is None]
    print(f"  texts of {CAMPAIGN_POSTS} posts or more: {len(flooded)}, with {sum(map(len, flooded)):,} posts")
    row("campaign posts from the fourth on (aim: over 90 %)", late)
    row("  and three of the text in the hour before them", soon)
    row("text once, account over a year (aim: under 2 %)", old)
    row("text once, account age unknown", unknown)
    row("text once, any account", single)


def _soon(items: Sequence[Judged]) -> list[Judged]:
    """Return the posts that have ``LET_OFF`` copies in the hour before them, behind as many that do not matter."""
    found = list(items[:LET_OFF])
    for earlier, item in zip(items, items[LET_OFF:], strict=False):
        if item.post.timestamp_ms - earlier.post.timestamp_ms <= HOUR_MS:
            found.append(item)
    return found


def row(name: str, judged: Sequence[Judged]) -> None:
    """Print how many of these posts are rejected."""
    formula = [item.explained.sum < item.explained.min_credibility for item in judged]
    alone = f"  formula {sum(formula) / len(formula):7.2%}" if formula else ""
    print(f"  {name:<52} {proportion([item.reason is not None for item in judged])}{alone}")


def reasons(judged: Sequence[Judged]) -> str:
    """Return the reasons of rejections, most frequent first."""
    counted = Counter(item.reason for item in judged if item.reason is not None)
    return ", ".join(f"{reason} {count:,}" for reason, count in counted.most_common()) or "none"


def distributions(judged: Sequence[Judged]) -> None:
    """Print score and factors by platform, and what the neutral value of an unknown factor does to the score."""
    platforms: defaultdict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        platforms[item.post.platform].append(item)
    for platform, items in platforms.items():
        print(f"  {platform:<18}{'least':>7}{'10 %':>7}{'50 %':>7}{'90 %':>7}{'most':>7}{'mean':>7}{'unknown':>9}")
        line("score", [item.explained.credibility_score for item in items], "")
        for at, name in enumerate(FACTORS):
            factors = [item.explained.factors[at] for item in items]
            unknown = sum(factor.unknown for factor in factors) / len(factors)
            line(name, [factor.value for factor in factors], f"{unknown:9.1%}" if at < 2 else "")
        effects: list[tuple[str, Callable[[Judged], float]]] = [
            ("neutral half (as it is)", lambda item: item.explained.credibility_score),
            ("zero", lambda item: item.explained.credibility_score - NEUTRAL * sum(_unknown(item))),
            ("full age (created 1970)", lambda item: item.explained.credibility_score + NEUTRAL * _unknown(item)[0]),
        ]
        for name, score in effects:
            scores = np.array([score(item) for item in items])
            under = (scores < MIN_CREDIBILITY - 1e-9).mean()
            print(f"    unknown counts as {name:<26} mean {scores.mean():.4f}, under {MIN_CREDIBILITY}: {under:7.2%}")


def _unknown(item: Judged) -> tuple[bool, bool]:
    return item.explained.factors[0].unknown, item.explained.factors[1].unknown


def line(name: str, values: Sequence[float], end: str) -> None:
    """Print where values lie."""
    points = [*np.percentile(values, [0, 10, 50, 90, 100]), np.mean(values)]
    print(f"    {name:<16}{''.join(f'{point:7.3f}' for point in points)}{end}")


def report(title: str, found: Run) -> None:
    """Print everything about one source."""
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in found.dropped.most_common())
    print(f"\n{title}: {found.read:,} posts, {len(found.judged):,} reach the filter; ingest drops {dropped or 'none'}")
    row("all", found.judged)
    print(f"  reasons: {reasons(found.judged)}")
    bots = [record for record in found.learned.values() if record.is_known_bot]
    print(f"  accounts learned: {len(found.learned):,}, of them bots {Counter(record.rule for record in bots)!r}")
    campaigns(found)
    labels = sorted({item.label for item in found.judged if item.label})
    if labels:
        row("labelled bot or campaign (aim: over 90 %)", [item for item in found.judged if item.label.startswith(BOTS)])
    for group in sorted({label.partition(" ")[0] for label in labels}):
        row(f"labelled {group}", [item for item in found.judged if item.label.partition(" ")[0] == group])
        for label in labels:
            if label.startswith(group):
                of_label = [item for item in found.judged if item.label == label]
                row(f"  {label}", of_label)
                print(f"      {reasons(of_label)}")
    distributions(found.judged)


def main() -> None:
    """Measure the recordings that are here, and a simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--minutes", type=int, default=5760)
    parser.add_argument("--rate", type=float, default=60.0, help="simulated posts a minute")
    arguments = parser.parse_args()
    for title, name in RECORDINGS.items():
        path = DATA / name
        if not path.is_file():
            print(f"\n{title}: ../shared/data/posts/{name} is not here: left out")
            continue
        report(title, asyncio.run(run(recorded(path))))
        if title == TELEGRAM:
            report(f"{title}, as if all named BTC", asyncio.run(run(recorded(path), Everything)))
    posts = simulated(arguments.seed, arguments.minutes, arguments.rate)
    simulation = asyncio.run(run(posts, listed=listed_bots()))
    report(f"Simulator, seed {arguments.seed}, {arguments.minutes} minutes", simulation)


if __name__ == "__main__":
    main()
