"""The public names of the Rust extension."""

from sentimesh._native import (
    BatchResult,
    LogReader,
    NearDuplicateIndex,
    SlideCount,
    SymbolExtractor,
    WindowStats,
    WindowStore,
    simhash64,
)

__all__ = [
    "BatchResult",
    "LogReader",
    "NearDuplicateIndex",
    "SlideCount",
    "SymbolExtractor",
    "WindowStats",
    "WindowStore",
    "simhash64",
]
