"""The aggregator stage: scored posts to windows, scores and viral spikes."""

from aggregator_svc.service import AggregatorStage

__all__ = ["AggregatorStage"]
