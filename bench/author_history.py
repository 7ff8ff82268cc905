"""What it costs to learn of authors: processor time and memory a million posts.

    python bench/author_history.py [--posts 1000000] [--accounts 100000]

Posts of a few busy and many quiet accounts, a fifth of them in one of 5,000 texts, serialized as in the stream.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np

from sentimesh.author_history import DAY_MS, WeekOfAuthors
from sentimesh.pb.pipeline_pb2 import CredibilityFactors, CredibilityMultipliers, FilteredPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

NOW_MS = 20_000 * DAY_MS
AT_ONCE = 2_000
TEXT = "Bitcoin breaks out again and everybody who was waiting for the dip is now late to the party, see you at the top"


def stored(posts: int, accounts: int) -> Iterator[list[bytes]]:
    """Yield batches of messages as a stream keeps them."""
    random = np.random.default_rng(1)
    factors = CredibilityFactors(account_age=0.1, follower_ratio=0.1, originality=0.25, verification=0.125)
    multipliers = CredibilityMultipliers(
        copy_paste_flooding=1.0, post_frequency=1.0, new_account=1.0, known_bot=1.0, author_history=1.0
    )
    for first in range(0, posts, AT_ONCE):
        size = min(AT_ONCE, posts - first)
        authors = random.zipf(1.3, size) % accounts
        texts = np.where(random.random(size) < 0.2, random.integers(1, 5_000, size), random.integers(1, 2**63, size))
        times = NOW_MS - random.integers(0, 7 * DAY_MS, size)
        yield [
            FilteredPost(
                post=SocialPost(
                    post_id=f"twitter:{1_183_904_570_830_000_000 + first + at}",
                    platform="twitter",
                    symbol="BTC",
                    text=TEXT,
                    author_id=str(1_000_000_000 + author),
                    timestamp_ms=at_ms,
                ),
                credibility_score=0.575,
                factors=factors,
                multipliers=multipliers,
                fingerprint=text,
            ).SerializeToString()
            for at, (author, text, at_ms) in enumerate(
                zip(authors.tolist(), texts.tolist(), times.tolist(), strict=True)
            )
        ]


def peak_mib() -> float:
    """Return the most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    arguments = parser.parse_args()
    week, before, taking = WeekOfAuthors(), peak_mib(), 0.0
    for batch in stored(arguments.posts, arguments.accounts):
        begun = time.process_time()
        for data in batch:
            week.add(FilteredPost.FromString(data))
        taking += time.process_time() - begun
    begun = time.process_time()
    records = week.judge(NOW_MS)
    judging = time.process_time() - begun
    bots = sum(record.is_known_bot for record in records)
    print(f"{len(week):,} posts of {len(records):,} accounts, {bots} of them bots")
    print(f"read and taken: {taking:.2f} s of the processor, {taking / len(week) * 1e6:.1f} us a post")
    print(f"judged: {judging:.2f} s, {judging / len(week) * 1e6:.1f} us a post")
    taken = peak_mib() - before
    print(f"memory at its peak: {taken:.0f} MiB, {taken * 2**20 / len(week):.0f} bytes a post")


if __name__ == "__main__":
    main()
