"""The configuration: the specification's YAML tree, environment overrides, secrets from the environment only."""

from sentimesh.errors import SettingsError
from sentimesh.settings.loading import load_settings, masked, source_of
from sentimesh.settings.sections import RAW_TOPICS, Finbert, InfluxDB, SpamFilter, list_source
from sentimesh.settings.tree import DEFAULT_SYMBOLS, Settings

__all__ = [
    "DEFAULT_SYMBOLS",
    "RAW_TOPICS",
    "Finbert",
    "InfluxDB",
    "Settings",
    "SettingsError",
    "SpamFilter",
    "list_source",
    "load_settings",
    "masked",
    "source_of",
]
