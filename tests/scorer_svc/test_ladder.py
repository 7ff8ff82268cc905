from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer_svc.ladder import BATCHES_AT_ONCE, PROBES, SLOW_POSTS, ModelLadder
from scorer_svc.model_store import load_model
from scorer_svc.sentiment import ModelError, Sentiment, SentimentModel
from scorer_svc.service import ScorerStage
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.stage import Delivery, Forward
from tests.scorer_svc.graphs import ERROR_TYPES, Way, write_model

TEXTS = ["gm", "bitcoin up", "gm"]


class Log:
    """What a ladder tells."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []
        self.service: list[str] = []
        self.inferences: list[tuple[str, int, float]] = []

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_error": lambda name, error: self.errors.append((name, error.error_type)),
            "on_service": lambda name, _version: self.service.append(name),
            "on_inference": lambda *inference: self.inferences.append(inference),
        }


class Model:
    """Gives every text the same polarity, unless told otherwise."""

    def __init__(
        self, version: str, polarity: float = 0.5, answer: Callable[[Sequence[str]], Any] | None = None
    ) -> None:
        self.model_version = version
        self.polarity = polarity
        self.answer = answer
        self.closed = False

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        assert not self.closed
        if self.answer is not None and texts[0] not in PROBES:
            answered: list[Sentiment] | None = self.answer(texts)
            if answered is not None:
                return answered
        return [Sentiment(self.polarity, 0.75, "neutral") for _ in texts]

    def close(self) -> None:
        self.closed = True


class Loader:
    """Loads models of a name, or fails as often as told."""

    def __init__(self, name: str, failures: int = 0, answer: Callable[[Sequence[str]], Any] | None = None) -> None:
        self.name = name
        self.failures = failures
        self.answer = answer
        self.loaded: list[Model] = []
        self.threads: list[int] = []

    def __call__(self) -> SentimentModel:
        self.threads.append(threading.get_ident())
        if self.failures:
            self.failures -= 1
            raise ModelError(f"{self.name} is not there")
        self.loaded.append(Model(f"{self.name}-{len(self.loaded) + 1}", answer=self.answer))
        return self.loaded[-1]


def of_files(*folders: Path) -> list[tuple[str, Callable[[], SentimentModel]]]:
    def load(folder: Path) -> Callable[[], SentimentModel]:
        return lambda: load_model(str(folder))

    return [(folder.name, load(folder)) for folder in folders]


@contextlib.asynccontextmanager
async def running(ladder: ModelLadder) -> AsyncIterator[ModelLadder]:
    await ladder.start()
    yield ladder
    await ladder.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (threads of the model are waited for)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("way", list(ERROR_TYPES))
async def test_a_broken_model_is_stood_in_for_and_comes_back_when_its_file_is_mended(tmp_path: Path, way: Way) -> None:
    log = Log()
    first, second = write_model(tmp_path / "first", way), write_model(tmp_path / "second", positive=2.0)
    options: dict[str, Any] = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.02}
    async with running(ModelLadder(of_files(first, second), **options, **log.callbacks())) as ladder:
        version, sentiments = await ladder.score(TEXTS)
        assert version.startswith("second-")
        assert len(sentiments) == 3
        assert set(log.errors) == {("first", ERROR_TYPES[way])}
        assert ladder.degraded
        assert ladder.in_use == "second"
        write_model(first, positive=3.0)
        await until(lambda: not ladder.degraded)
        assert ladder.in_use == "first"
        assert log.service == ["second", "first"]
        version, _ = await ladder.score(TEXTS)
        assert version.startswith("first-")
        assert log.errors.count(("first", ERROR_TYPES[way])) == len(log.errors)


@pytest.mark.parametrize("way", [way for way in ERROR_TYPES if way != "corrupt"])
async def test_a_model_that_fails_in_service_loses_that_batch_as_a_whole(tmp_path: Path, way: Way) -> None:
    log = Log()
    first, second = write_model(tmp_path / "first", way, word="down"), write_model(tmp_path / "second")
    async with running(ModelLadder(of_files(first, second), first_wait_seconds=0.01, **log.callbacks())) as ladder:
        assert (await ladder.score(TEXTS))[0].startswith("first-")
        version, sentiments = await ladder.score([*TEXTS, "bitcoin down", "up"])
        assert version.startswith("second-")
        assert len(sentiments) == 5
        assert log.errors == [("first", ERROR_TYPES[way])]
        # It scores texts without that word, so it is back.
        await until(lambda: not ladder.degraded)
        assert (await ladder.score(TEXTS))[0].startswith("first-")
        assert [(name, posts) for name, posts, _ in log.inferences] == [("first", 3), ("second", 5), ("first", 3)]


async def test_a_model_whose_file_is_gone_when_it_fails_is_not_back_before_the_file_is(tmp_path: Path) -> None:
    log = Log()
    first, second = write_model(tmp_path / "first", "nan", word="down"), write_model(tmp_path / "second")
    options: dict[str, Any] = {"first_wait_seconds": 0.001, "longest_wait_seconds": 0.002}
    async with running(ModelLadder(of_files(first, second), **options, **log.callbacks())) as ladder:
        (first / "model.onnx").unlink()
        assert (await ladder.score(TEXTS))[0].startswith("first-")
        assert (await ladder.score(["down"]))[0].startswith("second-")
        await until(lambda: len(log.errors) > 3)
        assert log.errors[:2] == [("first", "non_finite"), ("first", "load")]
        assert ladder.degraded
        write_model(first)
        await until(lambda: not ladder.degraded)


async def test_models_below_the_one_in_service_are_neither_loaded_nor_kept() -> None:
    fails = iter([True, False])

    def once(_texts: Sequence[str]) -> None:
        if next(fails, False):
            raise ValueError("once")

    first, second, third = Loader("first", answer=once), Loader("second"), Loader("third")
    log = Log()
    loaders = [(loader.name, loader) for loader in (first, second, third)]
    async with running(ModelLadder(loaders, first_wait_seconds=0.01, **log.callbacks())) as ladder:
        assert (len(first.loaded), len(second.loaded), len(third.loaded)) == (1, 0, 0)
        assert (await ladder.score(["a"]))[0] == "second-1"
        assert log.errors == [("first", "exception")]
        await until(lambda: not ladder.degraded)
        assert first.loaded[0].closed
        assert not second.loaded[0].closed
        assert (await ladder.score(["a"]))[0] == "first-2"
        assert second.loaded[0].closed
        assert third.loaded == []
    assert first.loaded[1].closed
    assert threading.get_ident() not in first.threads + second.threads


async def test_waits_between_attempts_double_up_to_the_longest() -> None:
    times: list[float] = []
    first = Loader("first", failures=6)

    def load() -> SentimentModel:
        times.append(loop.time())
        return first()

    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"first_wait_seconds": 0.02, "longest_wait_seconds": 0.1}
    async with running(ModelLadder([("first", load), ("second", Loader("second"))], **options)) as ladder:
        await until(lambda: not ladder.degraded)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    # A timer may be early by its resolution.
    assert all(wait > least - 0.002 for wait, least in zip(waits, [0.02, 0.04, 0.08, 0.1, 0.1, 0.1], strict=True))


async def test_a_batch_that_takes_too_long_goes_to_the_next_model() -> None:
    released = threading.Event()
    log = Log()
    first = Loader("first", answer=lambda _texts: released.wait() and None)
    ladder = ModelLadder(
        [("first", first), ("second", Loader("second"))],
        deadline_seconds=0.5,
        first_wait_seconds=60,
        **log.callbacks(),
    )
    async with running(ladder):
        assert (await ladder.score(["a", "b"]))[0] == "second-1"
        assert log.errors == [("first", "deadline")]
        assert first.loaded[0].closed
        released.set()


async def test_a_model_that_takes_too_long_to_load_is_not_waited_for_twice() -> None:
    released = threading.Event()
    first = Loader("first")
    log = Log()

    def load() -> SentimentModel:
        released.wait()
        return first()

    ladder = ModelLadder([("first", load), ("second", Loader("second"))], deadline_seconds=0.5, **log.callbacks())
    async with running(ladder):
        for _ in range(3):
            assert (await ladder.score(["a"]))[0] == "second-1"
        assert log.errors == [("first", "deadline")]
        released.set()
        await until(lambda: not ladder.degraded)
        assert (await ladder.score(["a"]))[0] == "first-1"


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(Model):
    """Takes so many milliseconds a post."""

    def __init__(self, version: str, clock: Clock, ms: Callable[[], float]) -> None:
        super().__init__(version)
        self.clock = clock
        self.ms = ms

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        self.clock.now += self.ms() * len(texts) / 1000
        return super().score(texts)


async def test_a_model_that_is_slow_in_the_mean_is_stood_in_for_until_it_is_fast() -> None:
    log, clock = Log(), Clock()
    ms = 4.0
    loaders: list[tuple[str, Callable[[], SentimentModel]]] = [
        ("first", lambda: Timed("first-1", clock, lambda: ms)),
        ("second", lambda: Timed("second-1", clock, lambda: 9.0)),
    ]
    options: dict[str, Any] = {"first_wait_seconds": 0.001, "longest_wait_seconds": 0.002}
    async with running(ModelLadder(loaders, max_ms_per_post=5.0, clock=clock, **options, **log.callbacks())) as ladder:
        batch = ["a"] * (SLOW_POSTS // 4)
        for _ in range(8):
            assert (await ladder.score(batch))[0] == "first-1"
        # One slow batch is no slow model; its own scores count in any case.
        ms = 6.0
        versions = [(await ladder.score(batch))[0] for _ in range(8)]
        assert versions[0] == versions[1] == "first-1"
        assert versions[-1] == "second-1"
        assert versions == sorted(versions)
        # The last model is the last, however slow.
        assert ("second", "slow") not in log.errors
        await until(lambda: len(log.errors) > 3)
        assert set(log.errors) == {("first", "slow")}
        ms = 4.0
        await until(lambda: not ladder.degraded)
        assert (await ladder.score(batch))[0] == "first-1"


async def test_few_slow_posts_are_no_slow_model() -> None:
    clock = Clock()
    loaders: list[tuple[str, Callable[[], SentimentModel]]] = [
        ("first", lambda: Timed("first-1", clock, lambda: 50.0)),
        ("second", Loader("second")),
    ]
    async with running(ModelLadder(loaders, max_ms_per_post=5.0, clock=clock)) as ladder:
        for _ in range(3):
            assert (await ladder.score(["a"] * (SLOW_POSTS // 4)))[0] == "first-1"
        assert not ladder.degraded


async def test_without_a_model_in_service_a_batch_is_an_error_and_so_is_the_start() -> None:
    log = Log()
    names = ("first", "second")
    ladder = ModelLadder([(name, Loader(name, failures=9)) for name in names], **log.callbacks())
    for attempt in (ladder.start(), ladder.score(["a"])):
        with pytest.raises(ModelError, match=r"no model is in service \(first, second\)"):
            await attempt
    assert ladder.in_use is None
    assert log.errors == [("first", "load"), ("second", "load")]
    await ladder.close()


async def test_what_the_last_model_raises_reaches_the_host() -> None:
    def fail(_texts: Sequence[str]) -> None:
        raise IndexError("a text it cannot read")

    ladder = ModelLadder([("only", Loader("only", answer=fail))])
    async with running(ladder):
        with pytest.raises(IndexError):
            await ladder.score(["a"])


async def test_no_texts_need_no_model() -> None:
    assert await ModelLadder([("first", Loader("first", failures=1))]).score([]) == ("", [])


NAMES = ("first", "second", "third")


def misbehave(how: str, texts: Sequence[str]) -> list[Sentiment] | None:
    """Do what a model may do wrong with a batch; None is nothing."""
    match how:
        case "error":
            raise ModelError("no", "inference")
        case "exception":
            raise ZeroDivisionError
        case "nan":
            return [Sentiment(float("nan"), 0.5, "neutral") for _ in texts]
        case "few":
            return [Sentiment(0.0, 0.5, "neutral") for _ in texts[1:]]
        case "many":
            return [Sentiment(0.0, 0.5, "neutral") for _ in [*texts, ""]]
    return None


Hows = st.sampled_from(["well", "well", "error", "exception", "nan", "few", "many"])


@given(
    plan=st.lists(st.tuples(st.integers(1, 4), st.tuples(Hows, Hows, Hows)), max_size=8),
    loads=st.tuples(*[st.lists(st.booleans(), max_size=4)] * 3),
    at_once=st.integers(1, 3),
)
def test_every_post_has_exactly_one_outcome_whatever_fails(
    plan: list[tuple[int, tuple[str, str, str]]], loads: tuple[list[bool], list[bool], list[bool]], at_once: int
) -> None:
    """Three models that fail to load and to score in any pattern, and one behind them that does not."""

    def loader(index: int) -> Callable[[], SentimentModel]:
        attempts = iter(loads[index])

        def answer(texts: Sequence[str]) -> list[Sentiment] | None:
            return misbehave(plan[int(texts[0].split()[0])][1][index], texts)

        def load() -> SentimentModel:
            if not next(attempts, True):
                raise ModelError("not now")
            return Model(NAMES[index], polarity=(index + 1) / 4, answer=answer)

        return load

    async def run() -> None:
        models = [(name, loader(index)) for index, name in enumerate(NAMES)]
        ladder = ModelLadder([*models, ("last", lambda: Model("last", 1.0))], first_wait_seconds=0.0)
        stage = ScorerStage(ladder)
        await stage.start()
        batches = [
            [
                Delivery(FilteredPost(post=SocialPost(post_id=f"{n}/{i}", symbol="BTC", text=f"{n} {i}")), i)
                for i in range(size)
            ]
            for n, (size, _) in enumerate(plan)
        ]
        for start in range(0, len(batches), at_once):
            some = range(start, min(start + at_once, len(batches)))
            answers = await asyncio.gather(*(stage.process(batches[n]) for n in some))
            for n, outcomes in zip(some, answers, strict=True):
                check(n, outcomes)
        await stage.close()

    def check(n: int, outcomes: Sequence[Sequence[Any]]) -> None:
        size, hows = plan[n]
        assert [len(of_one) for of_one in outcomes] == [1] * size
        posts: list[ScoredPost] = []
        for [outcome] in outcomes:
            assert isinstance(outcome, Forward)
            assert isinstance(outcome.message, ScoredPost)
            posts.append(outcome.message)
        assert [post.post.post_id for post in posts] == [f"{n}/{i}" for i in range(size)]
        [version] = {post.model_version for post in posts}
        # By a model that did well with this batch, and with that one's scores.
        assert version == "last" or hows[NAMES.index(version)] == "well"
        polarity = 1.0 if version == "last" else (NAMES.index(version) + 1) / 4
        assert {post.polarity for post in posts} == {polarity}

    asyncio.run(run())


async def test_a_model_that_fails_whenever_it_is_back_is_waited_for_longer_each_time() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()
    first = Loader("first", answer=lambda texts: misbehave("error", texts))

    def load() -> SentimentModel:
        times.append(loop.time())
        return first()

    options: dict[str, Any] = {"first_wait_seconds": 0.02, "longest_wait_seconds": 0.1, "clock": Clock()}
    async with running(ModelLadder([("first", load), ("second", Loader("second"))], **options)) as ladder:
        for _ in range(4):
            await until(lambda: not ladder.degraded)
            assert (await ladder.score(["a"]))[0] == "second-1"
        await until(lambda: not ladder.degraded)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(wait > least - 0.002 for wait, least in zip(waits, [0.02, 0.04, 0.08, 0.1], strict=True))


async def test_a_model_that_served_for_a_while_is_not_waited_for_longer() -> None:
    clock = Clock()
    first = Loader("first", answer=lambda texts: misbehave("error", texts))
    models = [("first", first), ("second", Loader("second"))]
    # Doubled each time, the last waits would be of minutes.
    options: dict[str, Any] = {"first_wait_seconds": 0.005, "longest_wait_seconds": 600.0, "clock": clock}
    async with running(ModelLadder(models, **options)) as ladder:
        for _ in range(18):
            clock.now += 1.0
            assert (await ladder.score(["a"]))[0] == "second-1"
            await until(lambda: not ladder.degraded)


async def test_batches_that_fail_together_take_a_model_out_once() -> None:
    together = threading.Barrier(2)

    def fail(_texts: Sequence[str]) -> None:
        together.wait()
        raise ModelError("no", "inference")

    log = Log()
    first = Loader("first", answer=fail)
    models = [("first", first), ("second", Loader("second"))]
    async with running(ModelLadder(models, first_wait_seconds=60, **log.callbacks())) as ladder:
        scores = await asyncio.gather(ladder.score(["a"]), ladder.score(["b", "c"]))
        assert [(version, len(sentiments)) for version, sentiments in scores] == [("second-1", 1), ("second-1", 2)]
        assert log.errors == [("first", "inference")]


async def test_only_so_many_batches_are_scored_at_once() -> None:
    now, most = 0, 0
    lock = threading.Lock()
    full = threading.Event()

    def answer(_texts: Sequence[str]) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == BATCHES_AT_ONCE:
                full.set()
        full.wait()
        # Time for one too many to come.
        time.sleep(0.05)
        with lock:
            now -= 1

    async with running(ModelLadder([("only", Loader("only", answer=answer))])) as ladder:
        await asyncio.gather(*(ladder.score(["a"]) for _ in range(2 * BATCHES_AT_ONCE)))
    assert most == BATCHES_AT_ONCE
