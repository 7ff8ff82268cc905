"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scorer_svc.sentiment import Device, SentimentModel


def load_model(
    name: str,
    *,
    store: Path | None = None,
    threads: int = 1,
    batch_size: int = 32,
    max_length: int = 128,
    cache_size: int = 32_768,
    device: Device = "cpu",
    on_scored: Callable[[int, int], None] = lambda _hits, _misses: None,
) -> SentimentModel:
    """Load ``vader``, a shipped model (``sentimesh-base``, ``sentimesh-mini``), a stored one or the one in a folder.

    ``store``: the folder of the stored ones; the others as :class:`OnnxModel` has them. Raises ModelError.
    """
    # Imported when one is wanted: ONNX Runtime takes longer to load than the rest, and only the scorer needs it.
    if name == "vader":
        from scorer_svc.vader_model import VaderModel

        return VaderModel()
    from scorer_svc.model_files import find_model
    from scorer_svc.onnx_model import OnnxModel

    return OnnxModel(
        find_model(name, store),
        threads=threads,
        batch_size=batch_size,
        max_length=max_length,
        cache_size=cache_size,
        device=device,
        on_scored=on_scored,
    )
