from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer_svc.engagement import engagement_weight
from sentimesh.pb.social_sentiment_pb2 import SocialPost

COUNTS = st.one_of(st.integers(0, 50), st.integers(0, 2**31 - 1))


def specified_weight(engagement: SocialPost.EngagementMetrics) -> float:
    """The specification's code, line by line."""
    raw_engagement = (
        engagement.likes * 1.0 + engagement.reposts * 2.0 + engagement.replies * 0.5 + engagement.views * 0.001
    )
    weight = math.log2(raw_engagement + 1) + 0.1
    return min(weight, 10.0)


@given(likes=COUNTS, reposts=COUNTS, replies=COUNTS, views=COUNTS)
def test_the_weight_is_the_specifications(likes: int, reposts: int, replies: int, views: int) -> None:
    engagement = SocialPost.EngagementMetrics(likes=likes, reposts=reposts, replies=replies, views=views)
    weight = engagement_weight(engagement)
    assert weight == specified_weight(engagement)
    assert 0.1 <= weight <= 10.0


@pytest.mark.parametrize(
    ("counts", "weight"),
    [
        ({}, 0.1),
        ({"likes": 1}, 1.1),
        ({"reposts": 1, "replies": 2}, 2.1),
        ({"views": 1_000}, 1.1),
        ({"likes": 1_000_000}, 10.0),
        ({"likes": -5, "reposts": -1, "replies": -1, "views": -1}, 0.1),
        ({"likes": 1, "reposts": -4}, 1.1),
    ],
)
def test_examples(counts: dict[str, int], weight: float) -> None:
    assert engagement_weight(SocialPost.EngagementMetrics(**counts)) == pytest.approx(weight)
