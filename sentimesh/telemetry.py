"""Metrics with the specification's names, structured logs, traces that follow a post through the broker."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from google.protobuf.message import Message
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from sentimesh.errors import ServerStartError
from sentimesh.pb.pipeline_pb2 import FilteredPost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.stage import Drop, Forward, Outcome, Reject

# Milliseconds; the service's own limits are 5 ms a post, 5 s and 60 s end to end.
LATENCY_BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000)
UNIT_BUCKETS = tuple(step / 10 for step in range(11))
POLARITY_BUCKETS = tuple(step / 5 for step in range(-5, 6))


class Metrics:
    """Every metric of the process, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self.ingested = counter("social_posts_ingested", "Posts received per platform", "platform", "symbol")
        self.ingestion_errors = counter("social_ingestion_errors", "Ingestion failures", "platform", "error_type")
        self.ingestion_latency = histogram(
            "social_ingestion_latency_ms", "Time from post creation to the stream", LATENCY_BUCKETS_MS, "platform"
        )
        self.filtered = counter("social_posts_filtered", "Posts that went no further", "reason")
        self.credibility = histogram(
            "social_credibility_histogram", "Credibility of posts that passed", UNIT_BUCKETS, "platform"
        )
        self.known_bots = gauge("social_known_bots_count", "Accounts in the set of known bots")
        self.known_bot_failures = counter(
            "social_known_bot_refresh_failures", "Sources of known bots that could not be read or stored", "source"
        )
        self.authors_learned = gauge("social_authors_learned_count", "Accounts judged when authors were last learned")
        self.author_bots = gauge("social_author_bots_count", "Accounts learned to be bots")
        self.authors_held_against = gauge(
            "social_author_multipliers_count", "Accounts whose history lowers their posts"
        )
        self.author_learning_seconds = gauge("social_author_learning_duration_seconds", "How long learning last took")
        self.author_learning_success = gauge(
            "social_author_learning_last_success_timestamp", "When authors were last learned, epoch seconds"
        )
        self.author_learning_failures = counter("social_author_learning_failures", "Times authors were not learned")
        self.near_duplicates_degraded = counter(
            "social_near_duplicates_degraded", "Posts compared with this process's own alone, Redis being away"
        )
        self.filter_degraded = counter(
            "social_filter_degraded", "Batches judged without what Redis knows, Redis being away", "signal"
        )
        self.inference_latency = histogram(
            "social_finbert_inference_latency_ms", "Per-batch inference time", LATENCY_BUCKETS_MS
        )
        self.batch_size = histogram("social_finbert_batch_size", "Posts per batch", (1, 2, 4, 8, 16, 32, 64, 128))
        self.polarity = histogram("social_polarity_histogram", "Polarity of scored posts", POLARITY_BUCKETS, "symbol")
        self.model_errors = counter("social_model_errors", "Model inference failures", "model", "error_type")
        self.model_degraded = gauge("social_model_degraded", "1 while another model than the configured one scores")
        self.model_in_use = gauge("social_model_in_use", "1 for the model that scores, 0 for the others", "model")
        self.cache_hits = counter("social_score_cache_hits", "Posts scored without a run of their own", "model")
        self.cache_misses = counter("social_score_cache_misses", "Posts that ran through the model", "model")
        self.shadow_posts = counter("social_shadow_posts", "Posts scored by both models", "model", "shadow_model")
        self.shadow_same_label = counter(
            "social_shadow_same_label", "Posts that both models give the same label", "model", "shadow_model"
        )
        self.shadow_difference = counter(
            "social_shadow_polarity_difference",
            "Sum of the absolute differences of the polarities",
            "model",
            "shadow_model",
        )
        self.shadow_left_out = counter(
            "social_shadow_left_out", "Posts of the sample that the shadow model had no time for or failed on"
        )
        self.score = gauge("social_sentiment_score", "Current score, 0 to 1", "symbol")
        self.directional_score = gauge("social_directional_score", "Current directional score, 0 to 1", "symbol")
        self.last_update = gauge(
            "social_sentiment_last_update_timestamp", "When the score was last computed, epoch seconds", "symbol"
        )
        self.post_count = gauge("social_aggregate_post_count", "Posts in the last closed window", "symbol")
        self.unique_authors = gauge("social_aggregate_unique_authors", "Authors in the last closed window", "symbol")
        self.volume_ratio = gauge("social_volume_ratio", "Volume ratio of the last window", "symbol")
        self.spikes = counter("social_viral_spikes_detected", "Spike events", "symbol")
        self.spike_ratio = gauge("social_viral_spike_ratio", "Magnitude of the last spike", "symbol")
        self.visible_latency = histogram(
            "social_post_to_score_latency_ms", "Time from post received to score in Redis", LATENCY_BUCKETS_MS
        )
        self.lag = gauge("social_jetstream_consumer_lag", "Messages not finished", "stream", "consumer")
        self.dead_letters = counter("social_dead_letters", "Messages no stage could use", "stage")
        self.stage_errors = counter("social_stage_errors", "Batches that failed and were tried again", "stage")
        self.writer_errors = counter("social_writer_errors", "Storage writes that failed and are retried", "backend")
        self.influxdb_latency = histogram("social_influxdb_write_latency_ms", "InfluxDB write time", LATENCY_BUCKETS_MS)
        self.postgres_latency = histogram(
            "social_postgres_write_latency_ms", "PostgreSQL write time", LATENCY_BUCKETS_MS
        )
        self.dependencies = gauge("social_dependency_up", "1 while a server answers and takes writes", "dependency")
        self.detection_latency = histogram(
            "social_viral_detection_latency_ms",
            "From the end of the spike's window to its alert",
            LATENCY_BUCKETS_MS,
        )
        self.aggregation_latency = histogram(
            "social_aggregation_latency_ms", "From the end of a window to its result", LATENCY_BUCKETS_MS
        )
        self.late_posts = counter("social_late_posts", "Posts older than any window still held")
        self.answers = counter("social_sentiment_score_used", "Times a score was read", "symbol")
        self.fallbacks = counter("social_sentiment_fallback", "Answers that were not the cached score", "reason")

    def serve(self, host: str, port: int) -> None:
        """Answer Prometheus on ``http://host:port/metrics``; port 0 takes any free one."""
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ServerStartError(
                f"cannot listen on {host}:{port} for metrics ({error.strerror}): "
                "set server.metrics_port in the configuration to another port, or to 0 for any"
            ) from error

    def outcome(self, stage: str, outcome: Outcome) -> None:
        """Count one outcome of one stage."""
        match outcome:
            case Forward(message=message):
                self._forwarded(message)
            case Drop(reason=reason):
                self.filtered.labels(reason).inc()
                if reason == "late":
                    self.late_posts.inc()
            case Reject():
                self.dead_letters.labels(stage).inc()
                if stage == "ingest":
                    self.ingestion_errors.labels("unknown", "malformed").inc()

    def _forwarded(self, message: Message) -> None:
        match message:
            case SocialPost():
                self.ingested.labels(message.platform, message.symbol).inc()
                self.ingestion_latency.labels(message.platform).observe(
                    max(0, message.ingested_at_ms - message.timestamp_ms)
                )
            case FilteredPost():
                self.credibility.labels(message.post.platform).observe(message.credibility_score)
            case ScoredPost():
                self.polarity.labels(message.post.symbol).observe(message.polarity)
            case SentimentAggregate():
                self.aggregate(message)
                self.aggregation_latency.observe(max(0, message.updated_at_ms - message.window_end_ms))
            case ViralSpike() if not message.resolved_at_ms:
                self.detection_latency.observe(max(0, time.time_ns() // 1_000_000 - message.detected_at_ms))
                self.spikes.labels(message.symbol).inc()
                self.spike_ratio.labels(message.symbol).set(message.spike_ratio)
            case _:
                pass

    def dependency(self, name: str, *, up: bool) -> None:
        """Show whether a server that a stage needs is usable."""
        self.dependencies.labels(name).set(up)

    def aggregate(self, aggregate: SentimentAggregate) -> None:
        """Show an aggregate, live or closed, on the gauges of its symbol."""
        symbol = aggregate.symbol
        self.score.labels(symbol).set(aggregate.social_sentiment_score)
        self.directional_score.labels(symbol).set(aggregate.directional_score)
        self.volume_ratio.labels(symbol).set(aggregate.volume_ratio)
        self.last_update.labels(symbol).set(aggregate.updated_at_ms / 1000)
        if not aggregate.live:
            self.post_count.labels(symbol).set(aggregate.post_count)
            self.unique_authors.labels(symbol).set(aggregate.unique_authors)


def configure_logging(level: str, *, json: bool) -> None:
    """Send one structured line an event to standard error, as JSON or for people."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Standard error as it is when something is said: it may have been another when this was configured.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


class Tracing:
    """Spans for posts; without an endpoint nothing is recorded and nothing is paid."""

    def __init__(self, service: str, otlp_endpoint: str | None) -> None:
        """``otlp_endpoint``: host:port of an OTLP gRPC collector, or None."""
        self._provider: TracerProvider | None = None
        if otlp_endpoint:
            self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
            exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sentimesh") if self._provider else None

    def span(
        self, name: str, carrier: Mapping[str, str] | None, attributes: Mapping[str, Any]
    ) -> AbstractContextManager[Any]:
        """Return a span that continues the trace found in a message's headers."""
        if self._tracer is None:
            return nullcontext()
        parent = propagate.extract(dict(carrier)) if carrier else None
        return self._tracer.start_as_current_span(name, context=parent, attributes=dict(attributes))

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the current span on."""
        carrier: dict[str, str] = {}
        if self._tracer is not None and trace.get_current_span().get_span_context().is_valid:
            propagate.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is left."""
        if self._provider:
            self._provider.shutdown()
