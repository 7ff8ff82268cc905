"""A credibility in words: what each factor and multiplier was made of, and what the filter does about it."""

from __future__ import annotations

from filter_svc.credibility import FULL_RATIO, RAMP_DAYS, account_age_days, followers_per_following
from filter_svc.judgement import Judgement
from filter_svc.multipliers import (
    MultiplierOptions,
    allowed_by_lifetime,
    allowed_by_population,
    is_short,
    posts_an_hour,
)
from filter_svc.sightings import Sighted
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityResponse, ExplainedFactor, ExplainedMultiplier
from sentimesh.pb.social_sentiment_pb2 import SocialPost


def explain(
    post: SocialPost,
    judgement: Judgement,
    sighted: Sighted,
    options: MultiplierOptions,
    *,
    is_duplicate: bool,
    min_credibility: float,
) -> ExplainCredibilityResponse:
    """Return what made up a post's credibility; ``sighted`` is what was seen before it."""
    credibility, multipliers = judgement.credibility, judgement.multipliers
    is_known_bot = multipliers.known_bot == 0.0
    reason = judgement.reason(min_credibility)
    inputs = {
        "copy_paste_flooding": _copies(post, sighted, options),
        "post_frequency": _frequency(post, sighted, options),
        "new_account": _newness(post, options),
        "known_bot": "in the set of known bots" if is_known_bot else "not in the set of known bots",
        "author_history": "nothing held against the account"
        if multipliers.author_history == 1.0
        else "learned from the account's posts of the last days",
    }
    return ExplainCredibilityResponse(
        post_id=post.post_id,
        symbol=post.symbol,
        factors=[
            ExplainedFactor(
                name="account_age",
                value=credibility.account_age,
                input=_age(post, options.min_account_age_days),
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
        multipliers=[
            ExplainedMultiplier(name=name, value=multipliers.value(name), input=text) for name, text in inputs.items()
        ],
        near_duplicate=is_duplicate,
        known_bot=is_known_bot,
        sum=credibility.total,
        credibility_score=judgement.score,
        credibility_score_as_copy=judgement.score_as_copy,
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


def _copies(post: SocialPost, sighted: Sighted, options: MultiplierOptions) -> str:
    if not sighted.copies:
        return "no other post of these words before it"
    text = f"{_number(sighted.copies, 'post')} of these words by {_number(sighted.copy_authors, 'account')} before it"
    if sighted.own_copies:
        text += f", {sighted.own_copies:,} by its own"
    shared = options.short_text_copies if is_short(post.text, options) else options.flooding_copies
    return f"{text}: {shared} or more share one voice"


def _frequency(post: SocialPost, sighted: Sighted, options: MultiplierOptions) -> str:
    if not post.author_id:
        return "author unknown: not counted"
    usual, crowd = allowed_by_lifetime(post, options), allowed_by_population(sighted, options)
    own = "usual rate unknown" if usual is None else f"up to {usual:.0f} by its lifetime"
    written = _number(sighted.author_posts + 1, "post")
    return f"{written} in an hour: {own}, up to {crowd:.0f} for the crowd"


def _newness(post: SocialPost, options: MultiplierOptions) -> str:
    days, rate = account_age_days(post), posts_an_hour(post)
    if days is None:
        return "account age unknown: not suspect"
    if days >= options.min_account_age_days:
        return f"{options.min_account_age_days:g} days or older: not suspect"
    writes = "" if rate is None else f", writes {24 * rate:,.0f} posts a day"
    return f"under {options.min_account_age_days:g} days old{writes}: the less the fewer follow it"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
