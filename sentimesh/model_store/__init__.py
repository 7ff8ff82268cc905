"""The model store: models that are fetched, checked, made smaller and chosen."""

from sentimesh.model_store.errors import ModelStoreError
from sentimesh.model_store.store import AUTO, FINBERT, ModelStore

__all__ = ["AUTO", "FINBERT", "ModelStore", "ModelStoreError"]
