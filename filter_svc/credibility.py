"""The specification's four-factor credibility of a post (section "Spam and Bot Filtering")."""

from __future__ import annotations

from dataclasses import dataclass

from sentimesh.pb.pipeline_pb2 import CredibilityFactors
from sentimesh.pb.social_sentiment_pb2 import SocialPost

MS_PER_DAY = 86_400 * 1000
# From min_account_age_days (30) to 365 days the age factor rises from nothing to all of it.
RAMP_DAYS = 335
# Followers per followed account that earn the whole ratio factor.
FULL_RATIO = 2.0
# What the specification gives an unknown ratio; used for an unknown age as well.
UNKNOWN = 0.5
WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class Credibility:
    """Four factors, each 0.0 to 0.25."""

    account_age: float
    follower_ratio: float
    originality: float
    verification: float

    @property
    def total(self) -> float:
        """The four together, 0.0 to 1.0."""
        return self.account_age + self.follower_ratio + self.originality + self.verification

    @property
    def total_as_copy(self) -> float:
        """The same, were the post a copy of another one."""
        return self.account_age + self.follower_ratio + self.verification

    @property
    def score(self) -> float:
        """The specification's credibility of an author who is no known bot, in steps of 0.0001."""
        return round(self.total, 4)

    def factors(self) -> CredibilityFactors:
        """Return the factors as the message that travels with a filtered post."""
        return CredibilityFactors(
            account_age=self.account_age,
            follower_ratio=self.follower_ratio,
            originality=self.originality,
            verification=self.verification,
        )


def account_age_days(post: SocialPost) -> float | None:
    """Return how old the author's account was when it wrote the post; None where the platform does not tell."""
    created_ms = post.author.account_created_ms
    return (post.timestamp_ms - created_ms) / MS_PER_DAY if created_ms > 0 else None


def followers_per_following(post: SocialPost) -> float | None:
    """Return the author's followers for each account it follows; None where it follows nobody or nobody knows."""
    # An absent author reads as zeros, which mean unknown.
    author = post.author
    return max(0, author.followers) / author.following if author.following > 0 else None


def compute_credibility(post: SocialPost, *, is_duplicate: bool, min_account_age_days: float = 30.0) -> Credibility:
    """Return the credibility of a post, exactly as the specification computes it; that of a known bot is 0.0.

    The account's age is taken at ``post.timestamp_ms``, so that a replay gives the same score whenever it
    runs. An age that the platform does not tell counts half, as an unknown ratio does; by the specification's
    code it would be that of an account of 1970.
    """
    days, followers = account_age_days(post), followers_per_following(post)
    age = UNKNOWN if days is None else min(max(0.0, (days - min_account_age_days) / RAMP_DAYS), 1.0)
    ratio = UNKNOWN if followers is None else min(followers / FULL_RATIO, 1.0)
    return Credibility(
        account_age=WEIGHT * age,
        follower_ratio=WEIGHT * ratio,
        originality=0.0 if is_duplicate else WEIGHT,
        verification=WEIGHT * (1.0 if post.author.verified else 0.5),
    )
