"""Models that go wrong under a running scorer, and a scorer that is killed: each post is scored once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import onnxruntime
import pytest
import stamina
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scorer_svc.model_store import load_model
from scorer_svc.sentiment import ModelError
from sentimesh.bus import DEAD_LETTERS, FILTERED, SCORED, Bus
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.settings import Settings
from sentimesh.stack import Stack
from tests.e2e.test_processes import SENTIMESH
from tests.scorer_svc.graphs import write_model

WINDOW = 300_000
START = 1_700_000_000_000 // WINDOW * WINDOW


@pytest.fixture
async def bus(settings: Settings, clean: None) -> AsyncIterator[Bus]:
    assert settings.nats.url is not None
    async with Bus(settings.nats.url) as bus:
        yield bus


def numbered(number: int, symbol: str, text: str) -> SocialPost:
    """Return a post of an author of its own, a second after the one before."""
    at_ms = START + number * 1000
    return SocialPost(
        post_id=f"twitter:{number}",
        platform="twitter",
        symbol=symbol,
        author_id=str(number),
        text=text,
        timestamp_ms=at_ms,
        received_at_ms=at_ms,
    )


async def send(bus: Bus, texts: Sequence[str], first: int = 0, symbols: Sequence[str] = ("BTC",)) -> None:
    """Publish posts to the scorer, numbered from ``first``, of the symbols in turn."""
    posts = [numbered(n, symbols[n % len(symbols)], text) for n, text in enumerate(texts, first)]
    await bus.publish_confirmed(
        [
            (
                f"social.filtered.{p.symbol}",
                FilteredPost(post=p, credibility_score=0.5),
                f"{p.post_id}/{p.symbol}/filter",
                {},
            )
            for p in posts
        ]
    )


async def scored(bus: Bus) -> list[ScoredPost]:
    """Return all that the scorer has published, in its order."""
    state = (await bus.jetstream.stream_info(SCORED.stream)).state
    numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
    messages = [await bus.jetstream.get_msg(SCORED.stream, number) for number in numbers]
    return [ScoredPost.FromString(message.data or b"") for message in messages]


async def status(stack: Stack, service: str) -> bool:
    async with grpc.aio.insecure_channel(stack.addresses["scorer"]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until(condition: Callable[[], None]) -> None:
    async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=None, wait_max=0.1):
        with attempt:
            condition()


async def until_model(stack: Stack, *, healthy: bool) -> None:
    """Wait until the health service of the model says so; the stage itself serves in any case."""
    async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=None, wait_max=0.3):
        with attempt:
            assert await status(stack, "model") == healthy
            assert await status(stack, "")
    assert value(stack, "social_model_degraded") == (not healthy)


def value(stack: Stack, name: str, **labels: str) -> float:
    return stack.metrics.registry.get_sample_value(name, labels) or 0.0


def running(settings: Settings) -> Stack:
    return Stack(settings, stages=["scorer"], free_ports=True, allow_embedded=False)


async def test_a_stage_that_is_slow_to_begin_is_waited_for(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_consumer = Bus.take_consumer

    async def take_it_late(*args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.5)
        await take_consumer(*args, **kwargs)

    monkeypatch.setattr(Bus, "take_consumer", take_it_late)
    async with running(settings) as stack:
        await send(bus, ["gm"] * 3)
        await stack.drained()
        assert await count(bus) == 3


async def test_a_model_goes_wrong_and_is_mended_and_no_post_is_lost_or_scored_twice(
    settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    first = write_model(tmp_path / "first", "nan", word="down")
    settings.model.primary = str(first)
    settings.model.retry_max_seconds = 1
    async with running(settings) as stack:
        await send(bus, ["gm"] * 40)
        await stack.drained()
        await until_model(stack, healthy=True)
        assert value(stack, "social_model_in_use", model=str(first)) == 1.0
        (first / "model.onnx").write_bytes(b"")
        await send(bus, ["gm"] * 50 + ["bitcoin down"] + ["gm"] * 50, 40)
        await stack.drained()
        await until_model(stack, healthy=False)
        assert value(stack, "social_model_in_use", model=str(first)) == 0.0
        assert value(stack, "social_model_in_use", model="sentimesh-base") == 1.0
        write_model(first)
        await until_model(stack, healthy=True)
        await send(bus, ["bitcoin down"] * 40, 141)
        await stack.drained()
        errors = [
            value(stack, "social_model_errors_total", model=str(first), error_type=t) for t in ("non_finite", "load")
        ]
    posts = await scored(bus)
    assert [post.post.post_id for post in posts] == [f"twitter:{n}" for n in range(181)]
    versions = [post.model_version for post in posts]
    assert errors[0] == 1.0
    assert errors[1] >= 1.0
    # The batch with the bad post, and all after it, by the next model; the mended file is another version.
    stood_in = [n for n, version in enumerate(versions) if version == "sentimesh-base-2.1"]
    assert stood_in == list(range(stood_in[0], 141))
    assert 40 <= stood_in[0] <= 90
    before, after = set(versions[: stood_in[0]]), set(versions[141:])
    assert len(before) == len(after) == 1
    assert before != after
    assert all(version.startswith("first-") for version in before | after)


async def test_without_any_neural_model_vader_scores(
    settings: Settings, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scorer_svc.model_files.SHIPPED", tmp_path / "nothing")
    settings.model.primary = str(tmp_path / "missing")
    async with running(settings) as stack:
        await until_model(stack, healthy=False)
        await send(bus, ["bitcoin is great"] * 3)
        await stack.drained()
        for name in (str(tmp_path / "missing"), "sentimesh-base", "sentimesh-mini"):
            assert value(stack, "social_model_errors_total", model=name, error_type="load") >= 1.0
    assert [post.model_version.split("-")[0] for post in await scored(bus)] == ["vader"] * 3


async def test_a_device_that_is_not_there_stops_the_start_with_one_sentence(settings: Settings, clean: None) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime can compute on cuda")
    settings.model.inference_device = "cuda"
    with pytest.raises(ModelError, match=r"^the installed ONNX Runtime cannot compute on cuda: install "):
        async with running(settings):
            pass


async def test_a_second_model_is_compared_on_live_posts(settings: Settings, bus: Bus, tmp_path: Path) -> None:
    settings.model.primary = str(write_model(tmp_path / "first", positive=4.0))
    settings.model.shadow_model = str(write_model(tmp_path / "second", positive=-4.0))
    settings.model.shadow_sample = 0.5
    texts = ["gm", "bitcoin up"] * 50

    async with running(settings) as stack:

        def compared() -> None:
            assert value(stack, "social_shadow_posts_total", **pair) == len(sample)

        await send(bus, texts)
        await stack.drained()
        posts = await scored(bus)
        first, second = (load_model(str(tmp_path / name)) for name in ("first", "second"))
        pair = {"model": first.model_version, "shadow_model": second.model_version}
        # Fixed, as by blake2b of the ids.
        sample = [n for n in range(100) if in_sample_of_half(n)]
        await until(compared)
        assert value(stack, "social_shadow_same_label_total", **pair) == 0.0
        [one], [other] = first.score(["gm"]), second.score(["gm"])
        difference = value(stack, "social_shadow_polarity_difference_total", **pair)
        assert difference == pytest.approx(len(sample) * abs(one.polarity - other.polarity))
        assert value(stack, "social_shadow_left_out_total") == 0.0
        hits, misses = (
            value(stack, f"social_score_cache_{what}_total", model=str(tmp_path / "first"))
            for what in ("hits", "misses")
        )
        # Two texts, and those that a model is tried with.
        assert hits + misses == len(texts) + 4
        assert misses <= 6
    assert {post.model_version for post in posts} == {pair["model"]}
    assert 30 < len(sample) < 70


def in_sample_of_half(number: int) -> bool:
    """By the first bit of the hash."""
    return hashlib.blake2b(f"twitter:{number}".encode(), digest_size=8).digest()[0] < 0x80


async def test_a_scorer_killed_during_batches_loses_nothing_and_doubles_nothing(
    settings: Settings, bus: Bus, tmp_path: Path, postgres_dsn: str
) -> None:
    texts = [f"bitcoin number {n} is breaking out, a new high is coming soon and everybody buys" for n in range(480)]
    async with Stack(settings, stages=["aggregator"], free_ports=True, allow_embedded=False) as aggregator:
        await send(bus, texts, symbols=("BTC", "ETH"))
        killed_at = await score_and_kill(settings, bus, len(texts), tmp_path)
        await aggregator.finish()
    assert all(killed_at), "each time there were posts that the scorer had not finished"
    posts = await scored(bus)
    assert [post.post.post_id for post in posts] == [f"twitter:{n}" for n in range(len(texts))]
    expected = load_model("sentimesh-mini").score(texts)
    assert [post.polarity for post in posts] == pytest.approx([sentiment.polarity for sentiment in expected], abs=1e-6)
    assert (await bus.jetstream.stream_info(DEAD_LETTERS.stream)).state.messages == 0
    # Windows of 300 and of 180 posts, half of them of each symbol.
    assert await window_counts(postgres_dsn) == [("BTC", 150), ("BTC", 90), ("ETH", 150), ("ETH", 90)]


async def score_and_kill(settings: Settings, bus: Bus, posts: int, folder: Path) -> list[int]:
    """Kill three scorers during their batches and let a fourth finish; return what each had not finished."""
    assert settings.nats.url is not None
    environment = {
        **os.environ,
        "SENTIMESH__SERVER__SCORER_PORT": "0",
        "SENTIMESH__SERVER__METRICS_PORT": "0",
        "SENTIMESH__NATS__URL": settings.nats.url.get_secret_value(),
        "SENTIMESH__MODEL__PRIMARY": "sentimesh-mini",
        "SENTIMESH__MODEL__THREADS": "1",
    }
    killed_at: list[int] = []
    with (folder / "log").open("wb") as log:
        for last in (False, False, False, True):
            process = await asyncio.create_subprocess_exec(SENTIMESH, "run", "scorer", env=environment, stderr=log)
            begun = await count(bus)
            # A few batches on, and in the midst of one.
            while (await count(bus)) < (posts if last else begun + 64) or (not last and not await in_work(bus)):
                assert process.returncode is None, (folder / "log").read_text()
                await asyncio.sleep(0.01)
            if last:
                await until_finished(bus)
            process.kill()
            await process.wait()
            if not last:
                killed_at.append(await in_work(bus))
    return killed_at


async def window_counts(dsn: str) -> list[tuple[str, int]]:
    """Return symbol and posts of each closed window with any in PostgreSQL, by symbol and time."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT symbol, post_count FROM social_sentiment_scores WHERE post_count > 0 ORDER BY symbol, window_start"
        )
    finally:
        await connection.close()
    return [(row["symbol"], row["post_count"]) for row in rows]


async def count(bus: Bus) -> int:
    return (await bus.jetstream.stream_info(SCORED.stream)).state.messages


async def in_work(bus: Bus) -> int:
    with contextlib.suppress(Exception):
        # The first scorer makes the consumer.
        return (await bus.jetstream.consumer_info(FILTERED.stream, "scorer")).num_ack_pending or 0
    return 0


async def until_finished(bus: Bus) -> None:
    while await bus.lag(FILTERED, "scorer"):  # noqa: ASYNC110 (the broker is asked)
        await asyncio.sleep(0.05)
