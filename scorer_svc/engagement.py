"""How much a post weighs by the engagement it got (specification, section "Engagement Weighting")."""

from __future__ import annotations

import math

from sentimesh.pb.social_sentiment_pb2 import SocialPost

MAX_WEIGHT = 10.0


def engagement_weight(engagement: SocialPost.EngagementMetrics) -> float:
    """Return the weight, 0.1 (no engagement) to 10.0: log2(likes + 2 reposts + replies/2 + views/1000 + 1) + 0.1.

    Negative counts, which no platform means, count as zero.
    """
    raw_engagement = (
        max(0, engagement.likes) * 1.0
        + max(0, engagement.reposts) * 2.0
        + max(0, engagement.replies) * 0.5
        + max(0, engagement.views) * 0.001
    )
    return min(math.log2(raw_engagement + 1) + 0.1, MAX_WEIGHT)
