"""Errors that only the gateway makes."""

from __future__ import annotations

from sentimesh.errors import SentimeshError


class RequestRefusedError(SentimeshError, ValueError):
    """A request whose fields cannot be; the client gets INVALID_ARGUMENT and the sentence."""
