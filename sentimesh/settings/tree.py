"""The whole tree of the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sentimesh.errors import InvalidSymbolError
from sentimesh.settings.sections import (
    Aggregation,
    AggregatorFallback,
    Ingest,
    Kafka,
    Model,
    Nats,
    Resources,
    ScoringIntegration,
    Server,
    Sources,
    SpamFilter,
    Storage,
    Telemetry,
    ViralDetection,
)
from sentimesh.symbols import validate_symbol

ENVIRONMENT_PREFIX = "SENTIMESH__"
DEFAULT_SYMBOLS = [
    *("BTC", "ETH", "SOL", "XRP", "BNB", "DOGE", "ADA", "TRX", "LINK", "AVAX"),
    *("DOT", "LTC", "BCH", "SHIB", "UNI", "NEAR", "ATOM", "XLM", "XMR", "APT"),
]


def _default_data_dir() -> Path:
    """Return the user's data folder; root's is one that PostgreSQL's unprivileged user can enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/sentimesh")
    shared = os.environ.get("XDG_DATA_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "sentimesh"


class Settings(BaseSettings):
    """The whole tree under ``social_sentiment:``. Environment variables such as
    ``SENTIMESH__NATS__URL`` override the file.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        # An empty variable is an unset one.
        env_ignore_empty=True,
        validate_assignment=True,
        hide_input_in_errors=True,
    )

    enabled: bool = True
    symbols: list[str] = DEFAULT_SYMBOLS
    sources: Sources = Sources()
    aggregator_fallback: AggregatorFallback = AggregatorFallback()
    model: Model = Model()
    spam_filter: SpamFilter = SpamFilter()
    aggregation: Aggregation = Aggregation()
    viral_detection: ViralDetection = ViralDetection()
    scoring_integration: ScoringIntegration = ScoringIntegration()
    kafka: Kafka = Kafka()
    storage: Storage = Storage()
    resources: Resources = Resources()
    nats: Nats = Nats()
    server: Server = Server()
    telemetry: Telemetry = Telemetry()
    ingest: Ingest = Ingest()
    # What the embedded servers keep.
    data_dir: Path = Field(default_factory=_default_data_dir)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings

    @field_validator("data_dir")
    @classmethod
    def _home(cls, folder: Path) -> Path:
        return folder.expanduser()

    @field_validator("symbols")
    @classmethod
    def _tracked(cls, symbols: list[str]) -> list[str]:
        if not symbols:
            raise ValueError("track at least one symbol")
        try:
            return list(dict.fromkeys(validate_symbol(symbol) for symbol in symbols))
        except InvalidSymbolError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _windows_fit(self) -> Settings:
        slide = self.viral_detection.slide_interval_seconds
        for key, seconds in (
            ("aggregation.window_seconds", self.aggregation.window_seconds),
            ("viral_detection.sliding_window_seconds", self.viral_detection.sliding_window_seconds),
        ):
            if seconds % slide:
                raise ValueError(f"{key} {seconds} is not a multiple of viral_detection.slide_interval_seconds {slide}")
        if self.aggregation.replica_count > self.kafka.partitions:
            raise ValueError(
                f"aggregation.replica_count {self.aggregation.replica_count} is over kafka.partitions "
                f"{self.kafka.partitions}: a replica without a partition has nothing to do"
            )
        return self

    def model_store(self) -> Path:
        """Return the folder of the stored models."""
        return (self.model.store or self.data_dir / "models").expanduser()

    def exported_finbert(self) -> Path | None:
        """Return the folder of a FinBERT exported elsewhere, which may not be there; None for an empty path."""
        path = self.model.model_path
        return Path(path).expanduser() if path else None

    def server_urls(self) -> dict[str, SecretStr | None]:
        """Return the URL of nats, redis, postgresql and influxdb.

        None where an embedded server is to be started, for influxdb where it is not used.
        """
        return {
            "nats": self.nats.url,
            "redis": self.storage.redis.url,
            "postgresql": self.storage.postgresql.dsn,
            "influxdb": self.storage.influxdb.url,
        }
