"""What the sum of the four factors is multiplied by: signs of automation that the specification's formula leaves out.

Thresholds without another source are ours, from the recorded X stream (five days of October 2019); what they do to it
is in docs/measurements.md, `bench/credibility.py` measures it again.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, fields

from filter_svc.credibility import account_age_days, followers_per_following
from filter_svc.sightings import Sighted
from sentimesh.pb.pipeline_pb2 import CredibilityMultipliers
from sentimesh.pb.social_sentiment_pb2 import SocialPost

_NOT_OWN = re.compile(r"https?://\S+|www\.\S+|(?<!\w)@\w+")
_WORDS = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class MultiplierOptions:
    """Thresholds of the multipliers."""

    # Earlier posts of the same words from which a post shares the weight of one voice with them.
    flooding_copies: int = 2
    # The same for texts of fewer characters than short_text, which people write alike by chance: of all accounts, and
    # of one alone.
    short_text_copies: int = 10
    short_text_own_copies: int = 3
    short_text: int = 20
    # Posts of one account in an hour that are never too many.
    frequency_floor: float = 8.0
    # Times the account's own mean over its lifetime, and times the mean of all accounts that wrote in the hour before.
    lifetime_factor: float = 3.0
    population_factor: float = 8.0
    # An account younger than this is suspect, the more so the younger.
    min_account_age_days: float = 30.0
    # How much is taken off one that is new, followed by nobody, or more than a person can write.
    new_account_penalty: float = 0.7


# Posts a day that are suspicious and highly suspicious of automation: Digital Forensic Research Lab, "#BotSpot: Twelve
# Ways to Spot a Bot", 2017.
SUSPICIOUS_A_DAY, HIGHLY_SUSPICIOUS_A_DAY = 72.0, 144.0
# Followers for each account followed from which a new account is not suspect for having none.
ENOUGH_FOLLOWERS = 0.5
HOURS_A_DAY = 24.0


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Each 0.0 to 1.0; 1.0 changes nothing."""

    known_bot: float = 1.0
    copy_paste_flooding: float = 1.0
    post_frequency: float = 1.0
    new_account: float = 1.0
    author_history: float = 1.0

    @property
    def product(self) -> float:
        """All of them together."""
        return self.known_bot * self.copy_paste_flooding * self.post_frequency * self.new_account * self.author_history

    def lowest(self) -> str:
        """Return the name of the one that takes most; empty when none takes anything. Of equals the first."""
        name = min((field.name for field in fields(self)), key=self.value)
        return name if self.value(name) < 1.0 else ""

    def value(self, name: str) -> float:
        """Return one by its name."""
        value: float = getattr(self, name)
        return value

    def message(self) -> CredibilityMultipliers:
        """Return the message that travels with a post."""
        return CredibilityMultipliers(
            copy_paste_flooding=self.copy_paste_flooding,
            post_frequency=self.post_frequency,
            new_account=self.new_account,
            known_bot=self.known_bot,
            author_history=self.author_history,
        )


NONE = Multipliers()


def multipliers(
    post: SocialPost, sighted: Sighted, history: float, options: MultiplierOptions, *, is_known_bot: bool
) -> Multipliers:
    """Return what a post's credibility is multiplied by; ``history`` is what was learned of its author, 0.0 to 1.0."""
    return Multipliers(
        known_bot=0.0 if is_known_bot else 1.0,
        copy_paste_flooding=flooding(post.text, sighted, options),
        post_frequency=frequency(post, sighted, options),
        new_account=new_account(post, options),
        author_history=history,
    )


def flooding(text: str, sighted: Sighted, options: MultiplierOptions) -> float:
    """Return 1.0 for a text of few copies; else each of n + 1 posts of the same words has its share of one voice."""
    copies, own = sighted.copies, sighted.own_copies
    if copies < options.flooding_copies:
        return 1.0
    few = own < options.short_text_own_copies and copies < options.short_text_copies
    if few and is_short(text, options):
        return 1.0
    return 1.0 / (copies + 1)


def is_short(text: str, options: MultiplierOptions) -> bool:
    """Say whether so little is said that many say it: links, mentions, punctuation and emoji aside."""
    words = _WORDS.findall(_NOT_OWN.sub("", unicodedata.normalize("NFKC", text)))
    return len(" ".join(words)) < options.short_text


def posts_an_hour(post: SocialPost) -> float | None:
    """Return the author's mean over its lifetime, of at least a day; None where the platform does not tell."""
    days, posts = account_age_days(post), post.author.total_posts
    return None if days is None or posts <= 0 else posts / (HOURS_A_DAY * max(days, 1.0))


def allowed_by_lifetime(post: SocialPost, options: MultiplierOptions) -> float | None:
    """Return how many posts an hour are usual for the account; None where its rate is unknown."""
    rate = posts_an_hour(post)
    return None if rate is None else max(options.frequency_floor, options.lifetime_factor * rate)


def allowed_by_population(sighted: Sighted, options: MultiplierOptions) -> float:
    """Return how many posts an hour are usual for an account of this crowd; the floor while the crowd is unknown."""
    return max(options.frequency_floor, options.population_factor * sighted.population)


def frequency(post: SocialPost, sighted: Sighted, options: MultiplierOptions) -> float:
    """Return 1.0 up to what is usual; beyond it what is usual over what is, once for either measure."""
    posts = sighted.author_posts + 1
    if posts <= options.frequency_floor:
        return 1.0
    found = min(1.0, allowed_by_population(sighted, options) / posts)
    usual = allowed_by_lifetime(post, options)
    return found if usual is None else found * min(1.0, usual / posts)


def new_account(post: SocialPost, options: MultiplierOptions) -> float:
    """Return 1.0 for an account of known, sufficient or unknown age; less the newer (by the square) and odder it is.

    Odd is one that nobody follows for all it follows, or that writes more than people do.
    """
    days = account_age_days(post)
    if days is None or days >= options.min_account_age_days:
        return 1.0
    youth = 1.0 - (max(0.0, days) / options.min_account_age_days) ** 2
    followers, rate = followers_per_following(post), posts_an_hour(post)
    unfollowed = 0.0 if followers is None else 1.0 - min(1.0, followers / ENOUGH_FOLLOWERS)
    excess = (
        0.0 if rate is None else (rate * HOURS_A_DAY - SUSPICIOUS_A_DAY) / (HIGHLY_SUSPICIOUS_A_DAY - SUSPICIOUS_A_DAY)
    )
    return 1.0 - options.new_account_penalty * youth * max(unfollowed, min(1.0, excess))
