"""From settings to stages: which constructor argument comes from which key."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import redis.asyncio
import structlog
from google.protobuf.message import Message
from prometheus_client import Histogram

from aggregator_svc.service import AggregatorOptions, AggregatorStage, Sink
from filter_svc.author_history import RedisAuthorHistory
from filter_svc.known_bots import RedisKnownBots
from filter_svc.multipliers import MultiplierOptions
from filter_svc.near_duplicates import RedisNearDuplicates
from filter_svc.outage import Outage
from filter_svc.service import FilterStage
from filter_svc.sightings import RedisSightings
from gateway_svc.history import SentimentHistory
from gateway_svc.reader import SentimentReader
from gateway_svc.service import SentimentGateway
from ingest_svc.claims import RedisClaims
from ingest_svc.service import IngestStage
from scorer_svc.ladder import ModelLadder
from scorer_svc.model_store import load_model
from scorer_svc.sentiment import Device, ModelError, SentimentModel
from scorer_svc.service import ScorerStage
from scorer_svc.shadow import Agreement, Comparison, Shadow
from sentimesh.bus import AGGREGATES, LIVE_SUBJECT, VIRAL_ALERTS, Bus, Topic
from sentimesh.errors import StorageUnavailableError
from sentimesh.model_store import ModelStore, ModelStoreError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate
from sentimesh.settings import Settings, SpamFilter
from sentimesh.storage.cache import SentimentCache
from sentimesh.storage.postgres import AggregateStore
from sentimesh.storage.writers import LiveSink, WriterStage, spike_key, window_key
from sentimesh.symbols import TrackedExtractor, load_assets
from sentimesh.telemetry import Metrics
from sentimesh.webhook import Webhook

if TYPE_CHECKING:
    from sentimesh.storage.influx import InfluxStore

log = structlog.get_logger(__name__)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LIVE_UPDATES_HELD = 1000
# What stands in for a configured model that does not load, best first.
SHIPPED_MODELS = ("sentimesh-base", "sentimesh-mini")
VADER = "vader"


def now_ms() -> int:
    """Return the wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000


def ingest(settings: Settings, client: redis.asyncio.Redis) -> IngestStage:
    """Return the ingest stage; claims are shared through Redis."""
    claims = RedisClaims(
        client,
        post_age_ms=settings.ingest.claim_window_hours * HOUR_MS,
        copy_age_ms=settings.ingest.copy_window_seconds * 1000,
    )
    return IngestStage(TrackedExtractor(load_assets(settings.symbols)), claims, settings.ingest.languages, now_ms)


def filtering(settings: Settings, metrics: Metrics, client: redis.asyncio.Redis) -> FilterStage:
    """Return the filter stage; all that it has seen and knows of authors is shared through Redis."""
    options = settings.spam_filter
    threshold, ttl_ms = options.simhash_threshold, int(options.simhash_ttl_hours * HOUR_MS)
    copies_ms, channel_copies_ms = copies_windows_ms(options)
    outage = Outage(on_degraded=lambda what: metrics.filter_degraded.labels(what).inc())
    return FilterStage(
        RedisKnownBots(client, outage),
        RedisNearDuplicates(client, threshold, ttl_ms, outage, on_degraded=metrics.near_duplicates_degraded.inc),
        RedisSightings(client, outage, copies_ms, channel_copies_ms),
        RedisAuthorHistory(client, outage),
        options=multiplier_options(options),
        min_credibility=options.min_credibility_threshold,
        simhash_threshold=threshold,
        simhash_ttl_ms=ttl_ms,
        copies_ms=copies_ms,
        channel_copies_ms=channel_copies_ms,
    )


def copies_windows_ms(options: SpamFilter) -> tuple[int, int]:
    """Return for how long a text is remembered, and a channel's own."""
    return options.flooding.remember_hours * HOUR_MS, options.flooding.channel_remember_hours * HOUR_MS


def multiplier_options(options: SpamFilter) -> MultiplierOptions:
    """Return the thresholds of the filter's multipliers."""
    return MultiplierOptions(
        flooding_copies=options.flooding.copies,
        short_text_copies=options.flooding.short_text_copies,
        short_text_own_copies=options.flooding.short_text_own_copies,
        short_text=options.flooding.short_text_characters,
        frequency_floor=options.post_frequency.floor,
        lifetime_factor=options.post_frequency.lifetime_factor,
        population_factor=options.post_frequency.population_factor,
        min_account_age_days=options.min_account_age_days,
        new_account_penalty=options.new_account_penalty,
    )


def _load(settings: Settings, metrics: Metrics, name: str, device: Device, threads: int) -> SentimentModel:
    options = settings.model
    store = ModelStore.configured(settings)

    def scored(hits: int, misses: int) -> None:
        metrics.cache_hits.labels(name).inc(hits)
        metrics.cache_misses.labels(name).inc(misses)

    return load_model(
        store.source(store.primary(name)),
        store=store.folder,
        threads=threads,
        batch_size=options.batch_size,
        max_length=options.max_length,
        cache_size=options.score_cache_entries,
        device=device,
        on_scored=scored,
    )


def _on_model_error(metrics: Metrics, name: str, error: ModelError) -> None:
    metrics.model_errors.labels(name, error.error_type).inc()
    log.warning("model.unusable", model=name, error_type=error.error_type, error=str(error))


def _on_model_service(name: str, model_version: str) -> None:
    log.info("model.in_service", model=name, model_version=model_version)


def scorer(settings: Settings, metrics: Metrics) -> ScorerStage:
    """Return the scorer stage: the configured model, and what stands in for it.

    Raises ModelError when this machine's ONNX Runtime has no such device as is configured.
    """
    options = settings.model
    try:
        primary = ModelStore.configured(settings).primary(options.primary)
    except ModelStoreError:
        # Unusable as it is now, and asked again while another stands in.
        primary = options.primary
    if primary != VADER:
        from scorer_svc.graph import refuse_missing_device  # a large library, for those who use it

        refuse_missing_device(options.inference_device)
    # What stands in shall not fail of the same cause: it computes on the processor.
    stand_ins: dict[str, Device] = dict.fromkeys((*SHIPPED_MODELS, options.fallback, VADER), "cpu")
    devices = {primary: options.inference_device} | {n: d for n, d in stand_ins.items() if n != primary}

    def scored(_name: str, posts: int, seconds: float) -> None:
        metrics.inference_latency.observe(seconds * 1000)
        metrics.batch_size.observe(posts)

    ladder = ModelLadder(
        [(name, partial(_load, settings, metrics, name, device, options.threads)) for name, device in devices.items()],
        deadline_seconds=options.batch_deadline_seconds,
        max_ms_per_post=options.max_ms_per_post,
        longest_wait_seconds=options.retry_max_seconds,
        on_error=partial(_on_model_error, metrics),
        on_service=_on_model_service,
        on_inference=scored,
    )
    metrics.model_degraded.set_function(lambda: ladder.degraded)
    for name in ladder.names:
        metrics.model_in_use.labels(name).set_function(partial(_is_in_use, ladder, name))
    return ScorerStage(ladder, _shadow(settings, metrics, options.shadow_model) if options.shadow_model else None)


def _is_in_use(ladder: ModelLadder, name: str) -> bool:
    return ladder.in_use == name


def _shadow(settings: Settings, metrics: Metrics, name: str) -> Shadow:
    """Return what compares a second model with the one that scores."""

    def compared(comparison: Comparison) -> None:
        pair = (comparison.model_version, comparison.shadow_version)
        metrics.shadow_posts.labels(*pair).inc()
        metrics.shadow_same_label.labels(*pair).inc(comparison.same_label)
        metrics.shadow_difference.labels(*pair).inc(comparison.difference)

    def summary(model_version: str, shadow_version: str, agreement: Agreement) -> None:
        log.info(
            "shadow.agreement",
            model=model_version,
            shadow_model=shadow_version,
            posts=agreement.posts,
            same_label=round(agreement.same_label_share, 4),
            mean_difference=round(agreement.mean_difference, 4),
        )

    options = settings.model
    ladder = ModelLadder(
        # One thread: the model that counts has the others.
        [(name, partial(_load, settings, metrics, name, "cpu", 1))],
        deadline_seconds=options.batch_deadline_seconds,
        longest_wait_seconds=options.retry_max_seconds,
        on_error=partial(_on_model_error, metrics),
        on_service=_on_model_service,
    )
    return Shadow(
        ladder,
        options.shadow_sample,
        on_comparison=compared,
        on_left_out=metrics.shadow_left_out.inc,
        on_summary=summary,
    )


def aggregator_options(settings: Settings) -> AggregatorOptions:
    """Return the aggregator's options out of the specification's three sections."""
    windows, spikes = settings.aggregation, settings.viral_detection
    return AggregatorOptions(
        window_ms=windows.window_seconds * 1000,
        span_ms=(windows.backfill_hours + 1) * HOUR_MS,
        allowed_lateness_ms=windows.allowed_lateness_seconds * 1000,
        min_posts_per_window=windows.min_posts_per_window,
        # As the filter's messages carry it (float32): what passed there passes here.
        min_credibility=ScoredPost(credibility_score=settings.spam_filter.min_credibility_threshold).credibility_score,
        baseline_days=windows.volume_baseline_days,
        baseline_min_windows=windows.baseline_min_windows,
        spike_window_ms=spikes.sliding_window_seconds * 1000,
        slide_ms=spikes.slide_interval_seconds * 1000,
        spike_threshold=spikes.spike_threshold,
        spike_min_mentions=spikes.min_mentions_per_window,
        cooldown_ms=spikes.cooldown_seconds * 1000,
        refresh_on_spike=spikes.trigger_re_aggregation,
        live_refresh_ms=round(windows.live_refresh_seconds * 1000),
    )


def aggregator(
    settings: Settings,
    options: AggregatorOptions,
    symbols: Sequence[str],
    sink: Sink,
    *,
    start_ms: int | None,
    history_start_ms: int | None,
    behind: int,
) -> AggregatorStage:
    """Return the aggregator stage of these symbols; see :class:`AggregatorStage` for the last three."""
    return AggregatorStage(
        symbols,
        options,
        sink,
        clock=settings.aggregation.clock,
        now_ms=now_ms,
        start_ms=start_ms,
        history_start_ms=history_start_ms,
        behind=behind,
    )


def live_sink(
    metrics: Metrics,
    bus: Bus,
    cache: SentimentCache,
    *,
    on_live: Callable[[Sequence[SentimentAggregate]], None],
    on_visible: Callable[[Sequence[int]], None],
) -> LiveSink:
    """Return the aggregator's sink: Redis, then whoever watches."""

    async def shown(aggregates: Sequence[SentimentAggregate]) -> None:
        for aggregate in aggregates:
            metrics.aggregate(aggregate)
            await bus.publish_live(aggregate)
        on_live(aggregates)

    def visible(latencies_ms: Sequence[int]) -> None:
        for latency in latencies_ms:
            metrics.visible_latency.observe(latency)
        on_visible(latencies_ms)

    def failed(error: StorageUnavailableError) -> None:
        metrics.writer_errors.labels("redis").inc()
        log.warning("writer.waiting", backend="redis", error=str(error))

    return LiveSink(cache, now_ms=now_ms, on_live=shown, on_visible=visible, on_error=failed)


def posts_writer(store: InfluxStore, metrics: Metrics) -> WriterStage[ScoredPost]:
    """Return the writer of scored posts to the time series."""
    return WriterStage(
        store.write_scored,
        key=lambda scored: (scored.post.post_id, scored.post.symbol),
        on_written=metrics.influxdb_latency.observe,
        on_error=metrics.writer_errors.labels("influxdb").inc,
    )


Writer = tuple[str, Topic, type[Message], WriterStage[Any]]


def writers(
    settings: Settings, metrics: Metrics, pool: asyncpg.Pool[Any], series: InfluxStore | None
) -> Sequence[Writer]:
    """Return the writers of closed windows and spikes: name, topic, message type, stage."""
    store = AggregateStore(pool)
    backends: list[tuple[str, AggregateStore | InfluxStore, Histogram]] = [
        ("postgresql", store, metrics.postgres_latency)
    ]
    if series is not None:
        backends.append(("influxdb", series, metrics.influxdb_latency))
    found: list[Writer] = []
    for name, backend, latency in backends:
        failed = metrics.writer_errors.labels(name).inc
        windows = WriterStage(backend.write_windows, key=window_key, on_written=latency.observe, on_error=failed)
        spikes = WriterStage(backend.write_spikes, key=spike_key, on_written=latency.observe, on_error=failed)
        found += [
            (f"{name}-windows", AGGREGATES, SentimentAggregate, windows),
            (f"{name}-spikes", VIRAL_ALERTS, ViralSpike, spikes),
        ]
    options = settings.viral_detection
    if options.webhook_url is not None:
        hook = Webhook(options.webhook_url, options.webhook_min_ratio, now_ms)
        failed = metrics.writer_errors.labels("webhook").inc
        found.append(("webhook", VIRAL_ALERTS, ViralSpike, WriterStage(hook.send, key=spike_key, on_error=failed)))
    return found


def gateway(
    settings: Settings, metrics: Metrics, bus: Bus, cache: SentimentCache, store: AggregateStore
) -> SentimentGateway:
    """Return the gateway's service: Redis first, PostgreSQL behind it, live updates from the bus."""
    reader = SentimentReader(
        cache,
        store,
        now_ms=now_ms,
        default_score=settings.scoring_integration.default_score,
        max_staleness_minutes=settings.scoring_integration.max_staleness_minutes,
        on_fallback=lambda reason: metrics.fallbacks.labels(reason).inc(),
    )

    async def live(symbols: Sequence[str]) -> AsyncIterator[SentimentAggregate]:
        subscription = await bus.client.subscribe(f"{LIVE_SUBJECT}.*", pending_msgs_limit=LIVE_UPDATES_HELD)
        try:
            async for message in subscription.messages:
                aggregate = SentimentAggregate.FromString(message.data)
                if aggregate.symbol in symbols:
                    yield aggregate
        finally:
            await subscription.unsubscribe()

    return SentimentGateway(
        reader,
        SentimentHistory(store, now_ms=now_ms),
        live,
        {asset.symbol: asset.name for asset in load_assets(settings.symbols)},
        on_answer=lambda symbol, _source: metrics.answers.labels(symbol).inc(),
    )
