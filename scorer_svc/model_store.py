"""Models by name."""

from __future__ import annotations

from scorer_svc.model_files import find_model
from scorer_svc.onnx_model import OnnxModel
from scorer_svc.sentiment import SentimentModel
from scorer_svc.vader_model import VaderModel


def load_model(name: str, *, threads: int = 1, max_length: int = 128, cache_size: int = 32_768) -> SentimentModel:
    """Load ``vader``, a shipped model (``sentimesh-base``, ``sentimesh-mini``) or the model in a folder.

    ``threads``: texts scored at once; this and the others as :class:`OnnxModel` has them. Raises ModelError.
    """
    if name == "vader":
        return VaderModel()
    return OnnxModel(find_model(name), threads=threads, max_length=max_length, cache_size=cache_size)
