"""The filter stage: how credible each post is, and which go no further."""

from filter_svc.service import FilterStage

__all__ = ["FilterStage"]
