"""Clients for what is kept: the Redis cache and the PostgreSQL tables."""

from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore, connect

__all__ = ["AggregateStore", "SentimentCache", "connect"]
