"""The people of the simulated crowd: nearly all of them write once in an hour, a few write all day.

Nobody is kept: who a person is follows from the seed and the person's number, so a crowd of millions takes no memory.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

DAY_MS = 86_400_000
# The density of people over their posts an hour falls with this power. With a lowest rate of one post in four days it
# gives the shares of author-hours with one, two, three, … posts of a recording of X (tests have them).
RATE_EXPONENT = 2.2
# Somebody who wrote in the last minutes writes again: answers, second thoughts.
BACK_SOON, BACK_WITHIN_MINUTES = 0.02, 12
# Quantiles of the account ages, in days, of people who post about bitcoin on X; the other numbers are log-normal with
# medians and spreads of the same people. Older accounts have more followers, who has followers follows more.
AGE_SHARES = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 1.0)
AGE_DAYS = (1, 36, 97, 415, 1055, 2777, 3722, 4400)
MEDIAN_AGE_DAYS, MEDIAN_FOLLOWERS, FOLLOWER_SPREAD, FOLLOWERS_OVER_AGE = 1055, 360, 2.0, 0.6
MEDIAN_FOLLOWING, FOLLOWING_SPREAD, FOLLOWING_OVER_FOLLOWERS = 380, 1.35, 0.44
MEDIAN_POSTS_PER_DAY, POSTS_SPREAD = 2.3, 1.7
# People kept made, for they come back; a person takes about 400 bytes.
CACHED = 10_000

# Account numbers: people below the first, made-up accounts of one simulation from there, published ones from the last.
MADE_UP, PUBLISHED, NUMBERS = 1 << 32, 3 << 31, 1 << 33
_SCRAMBLE = 2_654_435_761

_NORMAL = [NormalDist().inv_cdf((at + 0.5) / 4096) for at in range(4096)]
_FIRST = ("sat", "coin", "hodl", "chart", "moon", "node", "defi", "block", "alpha", "candle", "vault", "degen", "macro")
_SECOND = ("maxi", "fox", "whale", "mike", "anna", "trader", "nerd", "wizard", "lens", "bro", "otter", "sage", "punk")


@dataclass(frozen=True, slots=True)
class Author:
    """One account; ``number`` is its id on its platform."""

    number: int
    name: str
    created_ms: int
    followers: int
    following: int
    posts: int
    verified: bool


class Habits:
    """How often the people of a place write: each between these, in posts an hour."""

    def __init__(self, least: float, most: float) -> None:
        people, posts = 1 - RATE_EXPONENT, 2 - RATE_EXPONENT
        # Powers of the two, for the distribution of people over rates and of posts over their writers' rates.
        self._people = least**people, most**people - least**people
        self._posts = least**posts, most**posts - least**posts
        self.mean = people / posts * self._posts[1] / self._people[1]

    def rate(self, rank: float) -> float:
        """Return the posts an hour of a person of whom this share of all people writes more."""
        low, span = self._people
        return float((low + (1 - rank) * span) ** (1 / (1 - RATE_EXPONENT)))

    def writer(self, draw: float) -> float:
        """Return the rank of whoever wrote a post; ``draw``, from [0, 1), says which post."""
        (low, span), (least, people_span) = self._posts, self._people
        power = (low + draw * span) ** ((1 - RATE_EXPONENT) / (2 - RATE_EXPONENT))
        return float(1 - (power - least) / people_span)


# Chat is quicker than X; channels are run to be written in.
PLACES: Mapping[str, Habits] = {
    "twitter": Habits(0.01, 25),
    "reddit": Habits(0.01, 15),
    "telegram_group": Habits(0.03, 25),
    "telegram": Habits(0.2, 12),
    "discord": Habits(0.03, 25),
}


class _Place:
    """The people of one place, by number: the lower, the more they write."""

    def __init__(self, name: str, posts_per_minute: float, salt: int) -> None:
        self.habits = PLACES[name]
        self.people = max(1, round(60 * posts_per_minute / self.habits.mean))
        self.recent: deque[int] = deque(maxlen=max(3, round(BACK_WITHIN_MINUTES * posts_per_minute)))
        self.salt = salt


class Crowd:
    """All accounts of a simulation."""

    def __init__(self, rng: random.Random, start_ms: int, posts_per_minute: Mapping[str, float]) -> None:
        """``start_ms``: accounts are older than this; ``posts_per_minute``: of people, by place (``PLACES``)."""
        self._rng = rng
        self._start_ms = start_ms
        self._places = {name: _Place(name, rate, rng.getrandbits(62)) for name, rate in posts_per_minute.items()}
        self._own = random.Random()  # noqa: S311 (seeded anew for each person)
        self._person = lru_cache(maxsize=CACHED)(self._make_person)
        self._salt = rng.getrandbits(62)
        self._made_up = 0

    def pick(self, place: str) -> Author:
        """Return somebody who writes now."""
        draw, here = self._rng.random, self._places[place]
        if here.recent and draw() < BACK_SOON:
            number = here.recent[int(draw() * len(here.recent))]
        else:
            number = int(here.people * here.habits.writer(draw()))
        here.recent.append(number)
        return self._person(place, number)

    def throwaway(self, at_ms: float) -> Author:
        """Return an account a few days old that follows thousands and that hardly anybody follows."""
        return self._cheap(at_ms, 25, (1500, 5000), 30)

    def young(self, at_ms: float) -> Author:
        """Return an account made for campaigns: young, though not always under a month."""
        return self._cheap(at_ms, 120, (200, 2500), 150)

    def aged(self, at_ms: float) -> Author:
        """Return an account like many people's, over a year old, that wrote little until it was sold or stolen."""
        rng = self._rng
        days = rng.uniform(400, 3500)
        return _account(
            rng,
            self._next_number(),
            int(at_ms - days * DAY_MS),
            int(rng.lognormvariate(math.log(180), 1.2)),
            int(rng.lognormvariate(math.log(320), 0.9)),
            int(days * rng.lognormvariate(0.0, 0.9)) + 1,
            verified=rng.random() < 0.03,
        )

    def _make_person(self, place: str, number: int) -> Author:
        rng, here = self._own, self._places[place]
        rng.seed(here.salt + number)
        draw = rng.random
        days = _between(draw())
        median = MEDIAN_FOLLOWERS * (days / MEDIAN_AGE_DAYS) ** FOLLOWERS_OVER_AGE
        followers = median * math.exp(FOLLOWER_SPREAD * normal(draw))
        following = MEDIAN_FOLLOWING * ((followers + 1) / MEDIAN_FOLLOWERS) ** FOLLOWING_OVER_FOLLOWERS
        # What they write about coins is a part of all that they write.
        a_day = here.habits.rate((number + 0.5) / here.people) * (6 + 10 * draw())
        return _account(
            rng,
            (number * _SCRAMBLE + here.salt) % MADE_UP,
            int(self._start_ms - days * DAY_MS),
            int(followers),
            int(following * math.exp(FOLLOWING_SPREAD * normal(draw))),
            int(days * (a_day + MEDIAN_POSTS_PER_DAY * math.exp(POSTS_SPREAD * normal(draw)))) + 1,
            verified=draw() < min(0.02 + followers / 100_000, 0.7),
        )

    def _cheap(self, at_ms: float, max_days: int, following: tuple[int, int], max_followers: int) -> Author:
        rng = self._rng
        days = rng.uniform(1, max_days)
        return _account(
            rng,
            self._next_number(),
            int(at_ms - days * DAY_MS),
            rng.randint(0, max_followers),
            rng.randint(*following),
            int(days * rng.uniform(2, 200)) + 1,
        )

    def _next_number(self) -> int:
        self._made_up += 1
        return MADE_UP + (self._made_up * _SCRAMBLE + self._salt) % (PUBLISHED - MADE_UP)


def published(index: int, created_ms: int, followers: int, following: int, posts: int) -> Author:
    """Return an account whose number is the same in every simulation."""
    rng = random.Random(index)  # noqa: S311 (a crowd, no secret)
    number = PUBLISHED + index * _SCRAMBLE % (NUMBERS - PUBLISHED)
    return _account(rng, number, created_ms, followers, following, posts)


def _account(
    rng: random.Random,
    number: int,
    created_ms: int,
    followers: int,
    following: int,
    posts: int,
    *,
    verified: bool = False,
) -> Author:
    draw = rng.random
    first, second = _FIRST[int(draw() * len(_FIRST))], _SECOND[int(draw() * len(_SECOND))]
    name = f"{first}{'_' if draw() < 0.5 else ''}{second}{int(draw() * 9999) + 1}"
    return Author(number, name, created_ms, followers, following, posts, verified)


def normal(draw: Callable[[], float]) -> float:
    """Return a standard normal number, from a table: ``Random.gauss`` takes ten times as long."""
    return _NORMAL[int(draw() * len(_NORMAL))]


def _between(share: float) -> float:
    """Return the account age, in days, at a quantile."""
    at = bisect(AGE_SHARES, share)
    low, high = AGE_SHARES[at - 1], AGE_SHARES[at]
    return AGE_DAYS[at - 1] + (AGE_DAYS[at] - AGE_DAYS[at - 1]) * (share - low) / (high - low)
