"""Ingest: platform payloads to normalised posts, one for each tracked symbol they name."""

from ingest_svc.claims import Claims, MemoryClaims, RedisClaims
from ingest_svc.service import IngestStage

__all__ = ["Claims", "IngestStage", "MemoryClaims", "RedisClaims"]
