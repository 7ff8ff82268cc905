"""The people of the simulated crowd: few write much and are widely followed, most write little."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

DAY_MS = 86_400_000
AUTHORS = {"twitter": 600, "reddit": 300, "telegram": 25, "discord": 150}
# Exponent of activity over rank (Zipf); followers are log-normal with this median and spread.
ACTIVITY_EXPONENT, MEDIAN_FOLLOWERS, FOLLOWER_SPREAD = 0.8, 350, 1.9

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


class Crowd:
    """All accounts of a simulation."""

    def __init__(self, rng: random.Random, start_ms: int) -> None:
        """``start_ms``: accounts are older than this."""
        self._rng = rng
        self._start_ms = start_ms
        self._authors = {platform: [self._person() for _ in range(count)] for platform, count in AUTHORS.items()}
        self._activity = {
            platform: list(accumulate(1 / (rank + 1) ** ACTIVITY_EXPONENT for rank in range(count)))
            for platform, count in AUTHORS.items()
        }

    def pick(self, platform: str) -> Author:
        """Return somebody who writes now."""
        return self._rng.choices(self._authors[platform], cum_weights=self._activity[platform])[0]

    def bots(self, count: int) -> Sequence[Author]:
        """Return accounts a few days old that follow thousands and that hardly anybody follows."""
        return [self._throwaway(self._start_ms, 25, (1500, 5000), 30) for _ in range(count)]

    def campaigners(self, count: int, at_ms: int) -> Sequence[Author]:
        """Return accounts bought for a campaign: young, though not all of them under a month."""
        return [self._throwaway(at_ms, 120, (200, 2500), 150) for _ in range(count)]

    def _person(self) -> Author:
        rng = self._rng
        followers = int(math.exp(rng.gauss(math.log(MEDIAN_FOLLOWERS), FOLLOWER_SPREAD)))
        days = rng.uniform(2, 40) if rng.random() < 0.04 else rng.uniform(60, 4500)
        return self._account(
            self._start_ms,
            days,
            followers,
            following=int(math.exp(rng.gauss(math.log(300), 1.0))),
            posts=int(days * math.exp(rng.gauss(0.5, 1.2))) + 1,
            verified=rng.random() < min(0.02 + followers / 100_000, 0.7),
        )

    def _throwaway(self, at_ms: int, max_days: int, following: tuple[int, int], max_followers: int) -> Author:
        rng = self._rng
        days = rng.uniform(1, max_days)
        return self._account(
            at_ms,
            days,
            followers=rng.randint(0, max_followers),
            following=rng.randint(*following),
            posts=int(days * rng.uniform(20, 400)) + 1,
            verified=False,
        )

    def _account(
        self, at_ms: int, days: float, followers: int, following: int, posts: int, *, verified: bool
    ) -> Author:
        rng = self._rng
        name = f"{rng.choice(_FIRST)}{rng.choice(('', '_'))}{rng.choice(_SECOND)}{rng.randint(1, 9999)}"
        created_ms = int(at_ms - days * DAY_MS)
        return Author(rng.getrandbits(30) + 1, name, created_ms, followers, following, posts, verified)
