"""The gateway: what the trading system asks for a symbol's sentiment."""

from gateway_svc.history import SentimentHistory
from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway

__all__ = ["SentimentGateway", "SentimentHistory", "SentimentReader"]
