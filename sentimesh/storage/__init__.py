"""Clients for what is kept: the Redis cache, the PostgreSQL tables and the time series."""

from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore, connect
from sentimesh.storage.timeseries import PostgresTimeSeries, TimeSeries

__all__ = ["AggregateStore", "PostgresTimeSeries", "SentimentCache", "TimeSeries", "connect"]
