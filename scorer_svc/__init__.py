"""The scorer stage: polarity, confidence and engagement weight of each post."""

from scorer_svc.service import ScorerStage

__all__ = ["ScorerStage"]
