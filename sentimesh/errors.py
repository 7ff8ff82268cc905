"""Errors that a user sees: each message is one sentence that says what, where and what to do."""

from __future__ import annotations


class SentimeshError(Exception):
    """Base of every error with a sentence for the user; the command line prints it and exits with 1."""


class InvalidSymbolError(SentimeshError, ValueError):
    """A symbol that cannot be one, or is not tracked."""


class MalformedMessageError(SentimeshError, ValueError):
    """A payload or message that cannot be read; it belongs in the dead-letter stream."""


class StorageUnavailableError(SentimeshError):
    """Redis, PostgreSQL or InfluxDB does not answer."""


class StorageRefusedError(SentimeshError):
    """A back end answers and does not take a value: trying again cannot help."""


class ServerStartError(SentimeshError):
    """A port cannot be listened on."""


class SettingsError(SentimeshError):
    """The configuration cannot be used; says which key, why, and what to do."""
