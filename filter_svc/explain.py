"""A credibility in words: what each factor was made of, and what the filter does about it."""

from __future__ import annotations

from filter_svc.credibility import (
    FULL_RATIO,
    RAMP_DAYS,
    Credibility,
    account_age_days,
    followers_per_following,
)
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityResponse, ExplainedFactor
from sentimesh.pb.social_sentiment_pb2 import SocialPost


def explain(
    post: SocialPost,
    credibility: Credibility,
    reason: str | None,
    *,
    is_duplicate: bool,
    is_known_bot: bool,
    min_account_age_days: float,
    min_credibility: float,
) -> ExplainCredibilityResponse:
    """Return what made up a post's ``credibility``; ``reason`` is the drop's, None for a post that passes."""
    as_copy = credibility.account_age + credibility.follower_ratio + credibility.verification
    total = credibility.account_age + credibility.follower_ratio + credibility.originality + credibility.verification
    return ExplainCredibilityResponse(
        post_id=post.post_id,
        symbol=post.symbol,
        factors=[
            ExplainedFactor(
                name="account_age",
                value=credibility.account_age,
                input=_age(post, min_account_age_days),
                unknown=account_age_days(post) is None,
            ),
            ExplainedFactor(
                name="follower_ratio",
                value=credibility.follower_ratio,
                input=_ratio(post),
                unknown=followers_per_following(post) is None,
            ),
            ExplainedFactor(
                name="originality",
                value=credibility.originality,
                input="copy of another post: nothing" if is_duplicate else "no copy of a post seen before it: full",
            ),
            ExplainedFactor(
                name="verification",
                value=credibility.verification,
                input="verified: full" if post.author.verified else "not verified: half",
            ),
        ],
        near_duplicate=is_duplicate,
        known_bot=is_known_bot,
        sum=total,
        credibility_score=credibility.score,
        credibility_score_as_copy=0.0 if is_known_bot else round(as_copy, 4),
        min_credibility=min_credibility,
        passes=reason is None,
        drop_reason=reason or "",
    )


def _age(post: SocialPost, min_days: float) -> str:
    days = account_age_days(post)
    if days is None:
        return "account age unknown: half"
    full_days = min_days + RAMP_DAYS
    if days <= min_days:
        effect = f"nothing up to {min_days:g} days"
    elif days >= full_days:
        effect = f"full from {full_days:g} days"
    else:
        effect = f"rises from {min_days:g} to {full_days:g} days"
    # Rounded down: 29.9 days are not 30.
    return f"account {max(0, int(days)):,} days old: {effect}"


def _ratio(post: SocialPost) -> str:
    ratio = followers_per_following(post)
    followers = max(0, post.author.followers)
    if ratio is None:
        return f"{followers:,} followers, follows nobody or unknown: half" if followers else "followers unknown: half"
    effect = f"full from {FULL_RATIO:g}" if ratio >= FULL_RATIO else f"{FULL_RATIO:g} would be full"
    return f"{followers:,} followers, follows {post.author.following:,}, ratio {ratio:.2f}: {effect}"
