"""What a week of posts says about their authors: who is a bot, and how credible the others have been.

Pure: no clock, no storage. ``sentimesh/learning.py`` feeds it from the streams and keeps what it finds.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sentimesh.pb.pipeline_pb2 import CredibilityFactors, CredibilityMultipliers, FilteredPost, RejectedPost

DAY_MS = 86_400_000
PERSISTENTLY_LOW = "persistently_low"
FLOODING = "flooding"
# What the column of the table takes.
AUTHOR = re.compile(r"(?=.{3,100}\Z)[a-z]{1,20}:[^\x00-\x1f\x7f]+")

Integers = npt.NDArray[np.integer]
Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

TEXT = np.dtype([("fingerprint", "<u8"), ("first_ms", "<i8"), ("last_ms", "<i8")])


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """Thresholds; shares are 0.0 to 1.0. The settings ``spam_filter.author_history``."""

    # Posts of so many days are looked at.
    days: int = 7
    # An account of whom nothing is heard for so long is nobody special any more.
    forget_days: int = 30
    # Least credibility that passes the filter.
    min_credibility: float = 0.3
    # Persistently low: so many posts on so many days (UTC), that share of them under min_credibility.
    low_min_posts: int = 10
    low_min_days: int = 2
    low_share: float = 0.9
    # Flooding: so many posts, that share of them the account's own words again or late copies.
    flooding_min_posts: int = 10
    flooding_share: float = 0.5
    # Of an account with so many posts in the week that many texts are remembered beyond it, until forget_days.
    remembered_texts: int = 50
    # A bot stays one until its shares are under that part of those above.
    release: float = 0.5
    # Copies: a text of so many posts by so many accounts; its first ones are let off.
    copies_min_posts: int = 10
    copies_min_accounts: int = 2
    copies_let_off: int = 3
    # What is not known of an account: so many posts, for its credibility as those of the population.
    prior_posts: float = 10.0
    # For its multiplier as credible as this: 1.0 from a mean of this on, below it falling linearly.
    full_credibility: float = 0.4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an account did in the week; shares are of its posts, 0.0 to 1.0."""

    posts: int
    # Days (UTC) on which it posted.
    days: int
    # Of its posts, 0.0 to 1.0, see own_credibility.
    mean_credibility: float
    # Of the accounts of its platform, each counted once.
    population_credibility: float
    # Under min_credibility.
    low_share: float
    # With the fingerprint of an earlier post of its own, of the week or remembered.
    repeat_share: float
    # Of a text that many posts of several accounts have, its first ones let off.
    late_copy_share: float
    # One of these two or both.
    flooding_share: float
    # Its most frequent fingerprint, 0 where no post has one, and how many of its posts have it.
    fingerprint: int
    fingerprint_posts: int


@dataclass(frozen=True, slots=True)
class AuthorRecord:
    """What is known of an account ``{platform}:{author_id}``; times are epoch milliseconds, 0 for never."""

    author: str
    # Learned, 0.0 to 1.0.
    credibility: float
    # What its posts' credibility is multiplied by, 0.0 to 1.0.
    multiplier: float
    is_known_bot: bool
    # The rule that made it a bot, PERSISTENTLY_LOW or FLOODING; empty for others.
    rule: str
    # None where nothing was counted.
    evidence: Evidence | None
    last_seen_ms: int
    learned_ms: int
    # Since when it has been a known bot without a break.
    bot_since_ms: int = 0
    # When somebody said that it is no bot; posts until then no longer count.
    cleared_ms: int = 0
    # Fingerprints of its own posts and when each was first and last seen: an array of TEXT.
    texts: bytes = b""

    @property
    def platform(self) -> str:
        """The part before the colon."""
        return self.author.partition(":")[0]


def rule_of(evidence: Evidence, rules: HistoryRules, *, was_bot: bool = False) -> str:
    """Return the rule by which an account is a bot, empty when it is none.

    ``was_bot``: it has been one, so that part of the shares is enough.
    """
    if was_bot and (rule := rule_of(evidence, rules)):
        return rule
    part = rules.release if was_bot else 1.0
    if evidence.posts >= rules.flooding_min_posts and evidence.flooding_share >= part * rules.flooding_share:
        return FLOODING
    if (
        evidence.posts >= rules.low_min_posts
        and evidence.days >= rules.low_min_days
        and evidence.low_share >= part * rules.low_share
    ):
        return PERSISTENTLY_LOW
    return ""


def _shrunk(evidence: Evidence, prior: float, rules: HistoryRules) -> float:
    """Return an account's mean credibility, were ``prior_posts`` more posts of it as credible as ``prior``."""
    total = evidence.mean_credibility * evidence.posts + prior * rules.prior_posts
    return total / (evidence.posts + rules.prior_posts)


def own_credibility(factors: CredibilityFactors, multipliers: CredibilityMultipliers | None) -> float:
    """Return a post's credibility, 0.0 to 1.0, by what its author does: factors, flooding and frequency.

    Not by what is known of him already, or nothing could get better, and not by how new the account is, which is no
    behaviour and passes by itself.
    """
    total = factors.account_age + factors.follower_ratio + factors.originality + factors.verification
    if multipliers is not None:
        total *= multipliers.copy_paste_flooding * multipliers.post_frequency
    return round(total, 4)


class WeekOfAuthors:
    """Collects posts in any order, 32 bytes each, and judges their authors.

    A post counts once, whatever the number of its symbols and of its deliveries; where they differ the most credible
    counts. Posts without an author, or of one whose name the table cannot hold, do not count.
    """

    def __init__(self, rules: HistoryRules | None = None) -> None:
        self._rules = rules or HistoryRules()
        self._numbers: dict[str, int] = {}
        self._ids = array("Q")
        self._authors = array("I")
        self._fingerprints = array("Q")
        self._times = array("q")
        self._credibilities = array("f")

    def __len__(self) -> int:
        """Return how many messages were taken."""
        return len(self._ids)

    @property
    def newest_ms(self) -> int:
        """When the newest post was written, 0 without any."""
        return max(self._times, default=0)

    def add(self, message: FilteredPost | RejectedPost) -> None:
        """Take what the filter said of a post."""
        post = message.post if isinstance(message, FilteredPost) else message
        author = f"{post.platform}:{post.author_id}"
        number = self._numbers.get(author)
        if number is None:
            if not post.author_id or not AUTHOR.fullmatch(author):
                return
            number = self._numbers[author] = len(self._numbers)
        multipliers = message.multipliers if message.HasField("multipliers") else None
        self._ids.append(int.from_bytes(hashlib.blake2b(post.post_id.encode(), digest_size=8).digest(), "little"))
        self._authors.append(number)
        self._fingerprints.append(message.fingerprint)
        self._times.append(post.timestamp_ms)
        self._credibilities.append(own_credibility(message.factors, multipliers))

    def judge(self, now_ms: int, previous: Mapping[str, AuthorRecord] | None = None) -> list[AuthorRecord]:
        """Return what is known of every account that posted in the days up to ``now_ms`` or is in ``previous``.

        ``previous``: what was known before. An account there of which too few posts are known to judge it stays a bot.
        One that was not seen in these days stays as it was, until it is forgotten and left out; what others wrote,
        without evidence, is never forgotten.
        """
        previous = previous or {}
        messages = _Columns(
            ids=_view(self._ids, np.uint64),
            authors=_view(self._authors, np.uint32),
            fingerprints=_view(self._fingerprints, np.uint64),
            times=_view(self._times, np.int64),
            credibilities=_view(self._credibilities, np.float32),
        )
        accounts = _Accounts(list(self._numbers), messages, self._rules, now_ms, previous)
        found = {record.author: record for record in accounts.records()}
        forget_ms = now_ms - self._rules.forget_days * DAY_MS
        silent = [
            record
            for record in previous.values()
            if record.author not in found
            and (record.evidence is None or max(record.last_seen_ms, record.cleared_ms) > forget_ms)
        ]
        return [*found.values(), *silent]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Posts, each a place in all of these."""

    ids: Words
    authors: Integers
    fingerprints: Words
    times: Integers
    credibilities: Numbers

    def take(self, places: Integers) -> _Columns:
        """Return these posts, in this order."""
        return _Columns(*(getattr(self, field.name)[places] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts of accounts, each a place in all of these; ``first`` and ``last`` are times, epoch milliseconds."""

    authors: Integers
    fingerprints: Words
    first: Integers
    last: Integers


class _Accounts:
    """The accounts that posted in the days up to ``now_ms``, and their posts, each once."""

    def __init__(
        self,
        names: Sequence[str],
        messages: _Columns,
        rules: HistoryRules,
        now_ms: int,
        previous: Mapping[str, AuthorRecord],
    ) -> None:
        self._names, self._rules, self._now_ms, self._previous = names, rules, now_ms, previous
        posts = messages.take(_once(messages, now_ms - rules.days * DAY_MS, now_ms))
        late = _late_copies(posts, rules)
        # A text keeps all its copies; an account that was cleared begins anew.
        cleared = np.array([p.cleared_ms if (p := previous.get(name)) else 0 for name in names], np.int64)
        if cleared.any():
            counted = np.flatnonzero(posts.times > cleared[posts.authors])
            posts, late = posts.take(counted), late[counted]
        self._posts, self._late = posts, late
        self._known_texts = self._remembered()
        self._repeats, self._texts = _own_texts(self._posts, self._known_texts)

    def records(self) -> list[AuthorRecord]:
        """Return what is now known of each."""
        last = np.zeros(len(self._names), np.int64)
        np.maximum.at(last, self._posts.authors, self._posts.times)
        texts = self._to_remember()
        return [
            self._record(self._names[number], found, int(last[number]), texts.get(number, b""))
            for number, found in self._evidence()
        ]

    def _record(self, name: str, evidence: Evidence, last_ms: int, texts: bytes) -> AuthorRecord:
        rules, before = self._rules, self._previous.get(name)
        was_bot = before is not None and before.is_known_bot
        if before is not None and was_bot and evidence.posts < min(rules.low_min_posts, rules.flooding_min_posts):
            # Too little to take back what it is known for.
            return replace(before, last_seen_ms=last_ms, learned_ms=self._now_ms, texts=texts)
        rule = rule_of(evidence, rules, was_bot=was_bot)
        return AuthorRecord(
            author=name,
            credibility=_shrunk(evidence, evidence.population_credibility, rules),
            # Not towards the population's: throwaway accounts would lower everybody's.
            multiplier=min(1.0, _shrunk(evidence, rules.full_credibility, rules) / rules.full_credibility),
            is_known_bot=bool(rule),
            rule=rule,
            evidence=evidence,
            last_seen_ms=last_ms,
            learned_ms=self._now_ms,
            bot_since_ms=(before.bot_since_ms if before is not None and was_bot else self._now_ms) if rule else 0,
            cleared_ms=before.cleared_ms if before is not None else 0,
            texts=texts,
        )

    def _remembered(self) -> _Texts:
        """Return the texts that are known from before of the accounts with posts."""
        known = [
            (number, record.texts)
            for number, name in enumerate(self._names)
            if (record := self._previous.get(name)) and record.texts
        ]
        table = np.frombuffer(b"".join(texts for _, texts in known), TEXT)
        counts = [len(texts) // TEXT.itemsize for _, texts in known]
        authors = np.repeat(np.array([number for number, _ in known], np.uint32), counts)
        return _Texts(authors, table["fingerprint"], table["first_ms"], table["last_ms"])

    def _to_remember(self) -> dict[int, bytes]:
        """Return the texts to remember of each account, the last used ones first."""
        texts, rules = self._texts, self._rules
        busy = self._count() >= rules.flooding_min_posts
        busy[self._known_texts.authors] = True
        fresh = texts.last > self._now_ms - rules.forget_days * DAY_MS
        chosen = np.flatnonzero(fresh & busy[texts.authors] & (texts.fingerprints != 0))
        order = chosen[np.lexsort((texts.fingerprints[chosen], -texts.last[chosen], texts.authors[chosen]))]
        table = np.empty(len(order), TEXT)
        table["fingerprint"], table["first_ms"] = texts.fingerprints[order], texts.first[order]
        table["last_ms"] = texts.last[order]
        authors = texts.authors[order]
        starts = np.flatnonzero(_starts(authors))
        ends = np.minimum(np.append(starts[1:], len(order)), starts + rules.remembered_texts)
        return {
            number: table[start:end].tobytes()
            for number, start, end in zip(authors[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
        }

    def _evidence(self) -> list[tuple[int, Evidence]]:
        """Return number and evidence of each account that has posts."""
        posts = self._count()
        seen = np.flatnonzero(posts)
        if not len(seen):
            return []
        means = np.bincount(self._posts.authors, self._posts.credibilities, len(posts))[seen] / posts[seen]
        # As the posts' credibility is kept.
        low = self._posts.credibilities < np.float32(self._rules.min_credibility)
        flags = (low, self._repeats, self._late, self._repeats | self._late)
        shares = [self._count(flag)[seen] / posts[seen] for flag in flags]
        fingerprints, most = self._most_frequent()
        columns = [posts[seen], self._days()[seen], means, self._population(seen, means), *shares]
        columns += [fingerprints[seen], most[seen]]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [(number, Evidence(*row)) for number, row in zip(seen.tolist(), rows, strict=True)]

    def _count(self, flags: Flags | None = None) -> Integers:
        authors = self._posts.authors if flags is None else self._posts.authors[flags]
        return np.bincount(authors, minlength=len(self._names))

    def _days(self) -> Integers:
        order = np.lexsort((self._posts.times, self._posts.authors))
        authors, days = self._posts.authors[order], self._posts.times[order] // DAY_MS
        return np.bincount(authors[_starts(authors) | _starts(days)], minlength=len(self._names))

    def _population(self, seen: Integers, means: Numbers) -> Numbers:
        """Return for each account that was seen the mean of the accounts of its platform."""
        platforms = [self._names[number].partition(":")[0] for number in seen]
        known, of = np.unique(np.array(platforms), return_inverse=True)
        averages: Numbers = np.bincount(of, means, len(known)) / np.bincount(of)
        return averages.take(of)

    def _most_frequent(self) -> tuple[Words, Integers]:
        """Return each account's most frequent fingerprint, of equals the smallest, and how many posts have it."""
        texts, counts = np.zeros(len(self._names), np.uint64), np.zeros(len(self._names), np.int64)
        posts = self._posts.take(np.flatnonzero(self._posts.fingerprints))
        order = np.lexsort((posts.fingerprints, posts.authors))
        authors, fingerprints = posts.authors[order], posts.fingerprints[order]
        starts = np.flatnonzero(_starts(authors) | _starts(fingerprints))
        sizes = np.diff(np.append(starts, len(order)))
        # What is written last stays: the largest group, of equals the first.
        ranked = np.lexsort((-starts, sizes))
        texts[authors[starts[ranked]]] = fingerprints[starts[ranked]]
        counts[authors[starts[ranked]]] = sizes[ranked]
        return texts, counts


def _once(messages: _Columns, after_ms: int, until_ms: int) -> Integers:
    """Return the places of the posts in that time, each once: where it is most credible."""
    inside = np.flatnonzero((messages.times > after_ms) & (messages.times <= until_ms))
    ids = messages.ids[inside]
    order = np.lexsort((-messages.credibilities[inside], ids))
    return inside[order[_starts(ids[order])]]


def _view(column: array[int] | array[float], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a column as it is; it cannot grow as long as somebody looks into it."""
    return np.frombuffer(column, kind) if column else np.empty(0, kind)


def _own_texts(posts: _Columns, known: _Texts) -> tuple[Flags, _Texts]:
    """Say of each post whether its author had its text before, and return what texts each author has."""
    times = np.concatenate((posts.times, known.first, known.last))
    authors = np.concatenate((posts.authors, known.authors, known.authors))
    fingerprints = np.concatenate((posts.fingerprints, known.fingerprints, known.fingerprints))
    ids = np.concatenate((posts.ids, np.zeros(2 * len(known.authors), np.uint64)))
    # A text that is known from a post's own time is known from that post.
    after = np.arange(len(times)) >= len(posts.times)
    order = np.lexsort((ids, after, times, fingerprints, authors))
    first = _starts(authors[order]) | _starts(fingerprints[order])
    repeats = np.zeros(len(order), np.bool_)
    repeats[order] = ~first
    repeats[fingerprints == 0] = False
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))[: len(starts)] - 1
    texts = _Texts(authors[order[starts]], fingerprints[order[starts]], times[order[starts]], times[order[ends]])
    return repeats[: len(posts.times)], texts


def _late_copies(posts: _Columns, rules: HistoryRules) -> Flags:
    """Say of each post whether many posts of several accounts have its text and it is none of the first of them."""
    order = np.lexsort((posts.ids, posts.times, posts.fingerprints))
    fingerprints = posts.fingerprints[order]
    starts = np.flatnonzero(_starts(fingerprints))
    late = np.zeros(len(order), np.bool_)
    if not len(starts):
        return late
    sizes = np.diff(np.append(starts, len(order)))
    by_author = np.lexsort((posts.authors, posts.fingerprints))
    another = _starts(posts.fingerprints[by_author]) | _starts(posts.authors[by_author])
    accounts = np.add.reduceat(another.astype(np.int64), starts)
    many = (sizes >= rules.copies_min_posts) & (accounts >= rules.copies_min_accounts) & (fingerprints[starts] != 0)
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    late[order] = np.repeat(many, sizes) & (place >= rules.copies_let_off)
    return late


def _starts(values: npt.NDArray[np.generic]) -> Flags:
    """Say of each of sorted values whether it differs from the one before it."""
    found = np.ones(len(values), np.bool_)
    found[1:] = values[1:] != values[:-1]
    return found
