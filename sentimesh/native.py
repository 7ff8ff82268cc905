"""The public names of the Rust extension."""

from sentimesh._native import (
    BatchResult,
    LogReader,
    NearDuplicateBatch,
    NearDuplicateReads,
    NearDuplicateTable,
    SlideCount,
    SymbolExtractor,
    WindowStats,
    WindowStore,
    has_vnni,
    simhash64,
)

__all__ = [
    "BatchResult",
    "LogReader",
    "NearDuplicateBatch",
    "NearDuplicateReads",
    "NearDuplicateTable",
    "SlideCount",
    "SymbolExtractor",
    "WindowStats",
    "WindowStore",
    "has_vnni",
    "simhash64",
]
