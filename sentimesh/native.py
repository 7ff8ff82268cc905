"""The public names of the Rust extension; its stub ``_native.pyi`` documents them."""

from sentimesh._native import (
    BatchResult,
    NearDuplicateIndex,
    SlideCount,
    SymbolExtractor,
    WindowStats,
    WindowStore,
    simhash64,
)

__all__ = [
    "BatchResult",
    "NearDuplicateIndex",
    "SlideCount",
    "SymbolExtractor",
    "WindowStats",
    "WindowStore",
    "simhash64",
]
