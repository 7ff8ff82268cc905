"""What a week of posts says of their authors, against a slow and obvious version of the same rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimesh.author_history import (
    DAY_MS,
    FLOODING,
    PERSISTENTLY_LOW,
    AuthorRecord,
    Evidence,
    HistoryRules,
    WeekOfAuthors,
    own_credibility,
    rule_of,
)
from sentimesh.pb.pipeline_pb2 import CredibilityFactors, CredibilityMultipliers, FilteredPost, RejectedPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

NOW = 20_000 * DAY_MS
HOUR = 3_600_000
# Small enough for a handful of posts.
RULES = HistoryRules(
    low_min_posts=3, flooding_min_posts=4, copies_min_posts=3, copies_let_off=1, prior_posts=2.0, remembered_texts=2
)


@dataclass(frozen=True)
class Post:
    id: int = 1
    author: str = "twitter:a"
    time_ms: int = NOW - HOUR
    fingerprint: int = 0
    # Quarters of a factor's 0.25, so that sums are exact.
    credibility: float = 0.5
    symbol: str = "BTC"

    def message(self, *, is_rejected: bool = False, known_bot: float = 1.0) -> FilteredPost | RejectedPost:
        platform, _, author_id = self.author.partition(":")
        factors = CredibilityFactors(account_age=self.credibility)
        multipliers = CredibilityMultipliers(
            copy_paste_flooding=1.0, post_frequency=1.0, new_account=1.0, known_bot=known_bot, author_history=0.25
        )
        if is_rejected:
            return RejectedPost(
                post_id=f"{platform}:{self.id}",
                platform=platform,
                symbol=self.symbol,
                author_id=author_id,
                timestamp_ms=self.time_ms,
                factors=factors,
                multipliers=multipliers,
                fingerprint=self.fingerprint,
            )
        post = SocialPost(
            post_id=f"{platform}:{self.id}",
            platform=platform,
            symbol=self.symbol,
            author_id=author_id,
            timestamp_ms=self.time_ms,
        )
        return FilteredPost(post=post, factors=factors, multipliers=multipliers, fingerprint=self.fingerprint)


def judged(
    posts: list[Post], rules: HistoryRules = RULES, previous: list[AuthorRecord] | None = None, now_ms: int = NOW
) -> dict[str, AuthorRecord]:
    week = WeekOfAuthors(rules)
    for post in posts:
        week.add(post.message(is_rejected=post.id % 2 == 0))
    found = week.judge(now_ms, {record.author: record for record in previous or []})
    assert len({record.author for record in found}) == len(found)
    return {record.author: record for record in found}


def oracle(posts: list[Post], rules: HistoryRules, now_ms: int) -> dict[str, Evidence]:
    """The rules as they are told, post by post."""
    once: dict[str, Post] = {}
    for post in posts:
        key = f"{post.author.partition(':')[0]}:{post.id}"
        if now_ms - rules.days * DAY_MS < post.time_ms <= now_ms and (
            key not in once or post.credibility > once[key].credibility
        ):
            once[key] = post
    week = sorted(once.values(), key=lambda post: post.time_ms)
    by_text, by_author = defaultdict(list), defaultdict(list)
    for post in week:
        by_author[post.author].append(post)
        if post.fingerprint:
            by_text[post.fingerprint].append(post)
    late = {
        post
        for copies in by_text.values()
        if len(copies) >= rules.copies_min_posts and len({p.author for p in copies}) >= rules.copies_min_accounts
        for post in copies[rules.copies_let_off :]
    }
    means = {author: sum(p.credibility for p in own) / len(own) for author, own in by_author.items()}
    platforms = defaultdict(list)
    for author, mean in means.items():
        platforms[author.partition(":")[0]].append(mean)
    found = {}
    for author, own in by_author.items():
        repeats = {p for n, p in enumerate(own) if p.fingerprint and p.fingerprint in {q.fingerprint for q in own[:n]}}
        texts = Counter(p.fingerprint for p in own if p.fingerprint)
        text = min(texts, key=lambda fingerprint: (-texts[fingerprint], fingerprint), default=0)
        of_platform = platforms[author.partition(":")[0]]
        found[author] = Evidence(
            posts=len(own),
            days=len({p.time_ms // DAY_MS for p in own}),
            mean_credibility=means[author],
            population_credibility=sum(of_platform) / len(of_platform),
            low_share=sum(p.credibility < rules.min_credibility for p in own) / len(own),
            repeat_share=len(repeats) / len(own),
            late_copy_share=len(late & set(own)) / len(own),
            flooding_share=len((late & set(own)) | repeats) / len(own),
            fingerprint=text,
            fingerprint_posts=texts[text],
        )
    return found


@st.composite
def weeks(draw: st.DrawFn) -> list[Post]:
    """Posts of a few accounts with a few texts, some of them delivered more than once; no two at the same time."""
    size = draw(st.integers(0, 30))
    times = draw(st.lists(st.integers(0, 9 * 24 * 60), min_size=size, max_size=size, unique=True))
    posts = [
        Post(
            id=number,
            author=draw(st.sampled_from(["twitter:a", "twitter:b", "twitter:c", "reddit:a", "telegram:-100"])),
            time_ms=NOW + HOUR - minutes * 60_000,
            fingerprint=draw(st.sampled_from([0, 1, 2, 3, 2**64 - 1])),
            credibility=draw(st.sampled_from([0.0, 0.25, 0.5, 0.75])),
        )
        for number, minutes in enumerate(times, 1)
    ]
    again = draw(st.lists(st.sampled_from(posts), max_size=5)) if posts else []
    posts += [replace(post, symbol="ETH", credibility=draw(st.sampled_from([0.0, 0.5]))) for post in again]
    return draw(st.permutations(posts))


@given(weeks())
def test_the_evidence_is_what_the_rules_say(posts: list[Post]) -> None:
    expected = oracle(posts, RULES, NOW)
    found = judged(posts)
    assert set(found) == set(expected)
    for author, evidence in expected.items():
        record = found[author]
        assert record.evidence is not None
        for name in Evidence.__slots__:
            assert getattr(record.evidence, name) == pytest.approx(getattr(evidence, name)), (author, name)
        learned = (evidence.mean_credibility * evidence.posts + evidence.population_credibility * 2) / (
            evidence.posts + 2
        )
        assert record.credibility == pytest.approx(learned)
        against = (evidence.mean_credibility * evidence.posts + 0.4 * 2) / (evidence.posts + 2) / 0.4
        assert record.multiplier == pytest.approx(min(1.0, against))
        assert record.is_known_bot == bool(record.rule) == bool(rule_of(evidence, RULES))
        assert record.bot_since_ms == (NOW if record.is_known_bot else 0)


@given(weeks())
def test_learning_twice_learns_nothing_new(posts: list[Post]) -> None:
    # As many texts as there are: who is forgotten in between is another question.
    rules = replace(RULES, remembered_texts=10)
    first = judged(posts, rules)
    assert judged(posts, rules, list(first.values())) == first


@given(weeks(), st.integers(1, 5))
def test_what_is_remembered_stands_for_the_posts_that_are_gone(posts: list[Post], days: int) -> None:
    """An account that is judged with what it wrote before knows each of its texts, though the posts are gone."""
    rules = replace(RULES, flooding_min_posts=1, remembered_texts=10, release=0.0)
    before = judged(posts, rules, now_ms=NOW - days * DAY_MS)
    after = judged(posts, rules, list(before.values()))
    ids = {post.id: post for post in posts}
    for author, record in after.items():
        if record.learned_ms != NOW or record.evidence is None:
            continue
        own = sorted((p for p in ids.values() if p.author == author and p.time_ms <= NOW), key=lambda p: p.time_ms)
        week = [p for p in own if p.time_ms > NOW - rules.days * DAY_MS]
        known = [p for p in own if p in week or NOW - (rules.days + days) * DAY_MS < p.time_ms <= NOW - days * DAY_MS]
        repeats = [
            p
            for p in week
            if p.fingerprint and any(q.fingerprint == p.fingerprint for q in known if q.time_ms < p.time_ms)
        ]
        assert record.evidence.repeat_share == pytest.approx(len(repeats) / len(week))


def test_a_post_is_judged_without_what_is_known_of_its_author_and_without_his_youth() -> None:
    factors = CredibilityFactors(account_age=0.25, follower_ratio=0.125, originality=0.25, verification=0.125)
    assert own_credibility(factors, None) == 0.75
    multipliers = CredibilityMultipliers(
        copy_paste_flooding=0.5, post_frequency=0.8, new_account=0.5, known_bot=0.0, author_history=0.1
    )
    assert own_credibility(factors, multipliers) == pytest.approx(0.3)


def test_a_bot_gets_better_by_what_it_writes() -> None:
    bad = judged([Post(id=n, credibility=0.125, time_ms=NOW - n * 12 * HOUR) for n in range(6)])["twitter:a"]
    assert (bad.is_known_bot, bad.rule) == (True, PERSISTENTLY_LOW)
    assert bad.multiplier == pytest.approx((6 * 0.125 + 2 * 0.4) / 8 / 0.4)
    later = NOW + 7 * DAY_MS
    good = [Post(id=n, credibility=0.75, time_ms=later - n * HOUR) for n in range(3)]
    # Rejected as those of a known bot are; what they would be without the list counts.
    week = WeekOfAuthors(RULES)
    for post in good:
        week.add(post.message(is_rejected=True, known_bot=0.0))
    [better] = week.judge(later, {bad.author: bad})
    assert (better.is_known_bot, better.rule, better.bot_since_ms, better.multiplier) == (False, "", 0, 1.0)


def test_too_few_posts_take_nothing_back() -> None:
    bad = judged([Post(id=n, credibility=0.125, time_ms=NOW - n * 12 * HOUR) for n in range(6)])["twitter:a"]
    later = NOW + 8 * DAY_MS
    good = [Post(id=n, credibility=0.75, time_ms=later - n * HOUR) for n in range(2)]
    still = judged(good, previous=[bad], now_ms=later)["twitter:a"]
    assert still == replace(bad, last_seen_ms=later, learned_ms=later)


def test_a_bot_is_released_under_part_of_the_shares_only() -> None:
    flooding = [Post(id=n, fingerprint=7 if n < 3 else n, time_ms=NOW - n * HOUR) for n in range(4)]
    bot = judged(flooding)["twitter:a"]
    assert (bot.rule, bot.bot_since_ms) == (FLOODING, NOW)
    later = NOW + 8 * DAY_MS
    quarter = [Post(id=n, fingerprint=100 + max(n, 1), time_ms=later - n * HOUR) for n in range(4)]
    assert judged(quarter, now_ms=later)["twitter:a"].rule == ""
    kept = judged(quarter, previous=[bot], now_ms=later)["twitter:a"]
    assert (kept.rule, kept.bot_since_ms) == (FLOODING, NOW)
    none = [replace(post, fingerprint=200 + post.id) for post in quarter]
    assert judged(none, previous=[bot], now_ms=later)["twitter:a"].rule == ""


def test_low_on_one_day_is_not_persistent() -> None:
    start = NOW - DAY_MS
    assert start % DAY_MS == 0
    one_day = [Post(id=n, credibility=0.125, time_ms=start + n * HOUR) for n in range(1, 8)]
    assert not judged(one_day)["twitter:a"].is_known_bot
    assert judged([*one_day, Post(id=9, credibility=0.125, time_ms=start - 1)])["twitter:a"].rule == PERSISTENTLY_LOW


def test_texts_come_back_after_weeks() -> None:
    """Each week has three texts of its own account once; only what is remembered shows that they are the same."""
    record: list[AuthorRecord] = []
    rules = replace(RULES, flooding_min_posts=3, remembered_texts=3)
    for week in range(3):
        now_ms = NOW + week * 10 * DAY_MS
        posts = [Post(id=week * 10 + n, fingerprint=n, time_ms=now_ms - n * HOUR) for n in (1, 2, 3)]
        record = list(judged(posts, rules, record, now_ms).values())
        assert record[0].is_known_bot == (week > 0)
        assert len(record[0].texts) == 3 * 24
    silent_ms = NOW + 20 * DAY_MS + rules.forget_days * DAY_MS
    # Its last post was an hour before.
    assert judged([], rules, record, silent_ms - HOUR - 1) == {"twitter:a": record[0]}
    assert judged([], rules, record, silent_ms - HOUR) == {}


def test_the_last_used_texts_are_remembered() -> None:
    posts = [Post(id=n, fingerprint=n, time_ms=NOW - n * HOUR) for n in range(1, 7)]
    first = judged(posts)["twitter:a"]
    assert [int.from_bytes(first.texts[at : at + 8], "little") for at in range(0, len(first.texts), 24)] == [1, 2]


def test_who_was_cleared_begins_anew() -> None:
    posts = [Post(id=n, fingerprint=7, time_ms=NOW - n * HOUR) for n in range(6)]
    bot = judged(posts)["twitter:a"]
    assert bot.is_known_bot
    cleared = replace(bot, is_known_bot=False, rule="", multiplier=1.0, bot_since_ms=0, cleared_ms=NOW, texts=b"")
    assert judged(posts, previous=[cleared]) == {"twitter:a": cleared}
    later = NOW + DAY_MS
    again = [Post(id=10 + n, fingerprint=7, time_ms=later - n * HOUR) for n in range(4)]
    found = judged([*posts, *again[:3]], previous=[cleared], now_ms=later)["twitter:a"]
    assert found.evidence is not None
    assert (found.evidence.posts, found.is_known_bot, found.cleared_ms) == (3, False, NOW)
    found = judged([*posts, *again], previous=[cleared], now_ms=later)["twitter:a"]
    assert (found.rule, found.cleared_ms) == (FLOODING, NOW)


def test_copies_are_shared_by_accounts_and_the_first_are_let_off() -> None:
    copies = [Post(id=n, author=f"twitter:{n}", fingerprint=9, time_ms=NOW - (5 - n) * HOUR) for n in range(5)]
    found = judged(copies)
    assert [found[f"twitter:{n}"].evidence.late_copy_share for n in range(5)] == [0, 1, 1, 1, 1]  # type: ignore[union-attr]
    # One account alone copies nobody.
    alone = judged([replace(post, author="twitter:a") for post in copies])["twitter:a"].evidence
    assert alone is not None
    assert (alone.late_copy_share, alone.repeat_share) == (0.0, 0.8)


@pytest.mark.parametrize("author", ["twitter:", "twitter:" + "x" * 93, "twitter:a\x00b", ":a"])
def test_who_cannot_be_kept_is_not_learned_of(author: str) -> None:
    assert judged([Post(author=author)]) == {}


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=10, unique=True))
def test_the_more_credible_the_posts_the_less_is_held_against_them(values: list[float]) -> None:
    posts = [
        Post(id=at * 10 + n, author=f"twitter:{at}", credibility=value)
        for at, value in enumerate(sorted(values))
        for n in range(5)
    ]
    found = judged(posts)
    for one, other in pairwise(found[f"twitter:{at}"] for at in range(len(values))):
        assert one.credibility <= other.credibility
        assert one.multiplier <= other.multiplier
