"""The order of models: the best one that is in service scores; those below it are loaded when they are needed."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scorer_svc.sentiment import ModelError, Sentiment, SentimentModel, refuse_unusable

# Batches that are scored at once; the others wait for their turn.
BATCHES_AT_ONCE = 2
# A model is judged slow by the mean of about so many posts.
SLOW_POSTS = 200
# What a model has to score before it comes into service; the first one is to warm up.
PROBES = (
    "gm",
    "Bitcoin breaking out, new all time high soon",
    "exchange hacked, all funds are gone",
    "How do I move coins from one wallet to another?",
)

Scores = tuple[str, list[Sentiment]]


@dataclass(slots=True)
class _Rung:
    name: str
    load: Callable[[], SentimentModel]
    # None while it is not in service.
    model: SentimentModel | None = None
    # Brings the model into service; None before it was wanted.
    bringing: asyncio.Task[None] | None = None
    # Set once the first attempt to load is over.
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    # In a row; decides how long until the next attempt.
    failures: int = 0
    was_slow: bool = False
    in_service_since: float = 0.0
    # Batches that use it or wait for it.
    batches: int = 0
    posts: int = 0
    mean_ms: float = 0.0


class ModelLadder:
    """Scores each batch with the first model that can, the preferred one first.

    A model that does not load, fails, answers what is no score, or is too slow is out of service: the next one takes
    the same batch (of one that is slow in the mean: the next batch). It is loaded again in the background, with a
    growing wait, and comes back once it scores a few texts. All of it belongs to one event loop.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, Callable[[], SentimentModel]]],
        *,
        deadline_seconds: float = 60.0,
        max_ms_per_post: float | None = None,
        first_wait_seconds: float = 1.0,
        longest_wait_seconds: float = 60.0,
        on_error: Callable[[str, ModelError], None] = lambda _name, _error: None,
        on_service: Callable[[str, str], None] = lambda _name, _model_version: None,
        on_inference: Callable[[str, int, float], None] = lambda _name, _posts, _seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``models``: at least one name with what loads it; that runs in a thread and blocks there.

        ``deadline_seconds``: a batch that takes longer goes to the next model. ``max_ms_per_post``: the longest mean
        time of a post, judged for all but the last model; None judges none. Waits between attempts to load double from
        ``first_wait_seconds`` to ``longest_wait_seconds``. Called on the event loop: ``on_error`` for each failure,
        ``on_service(name, model_version)`` when a model comes into service, ``on_inference(name, posts, seconds)`` for
        each batch scored.
        """
        self._rungs = [_Rung(name, load) for name, load in models]
        self._deadline_seconds = deadline_seconds
        self._max_ms_per_post = max_ms_per_post
        self._first_wait_seconds = first_wait_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._on_error = on_error
        self._on_service = on_service
        self._on_inference = on_inference
        self._clock = clock
        self._turn = asyncio.Semaphore(BATCHES_AT_ONCE)

    @property
    def names(self) -> Sequence[str]:
        """All models, the preferred one first."""
        return [rung.name for rung in self._rungs]

    @property
    def in_use(self) -> str | None:
        """The name of the model that the next batch is for; None while there is none."""
        return next((rung.name for rung in self._rungs if rung.model is not None), None)

    @property
    def degraded(self) -> bool:
        """Whether it is another than the preferred one."""
        return self._rungs[0].model is None

    async def start(self) -> None:
        """Load the first model that loads, so that the first batch need not wait for it. Raises ModelError."""
        for rung in self._rungs:
            if await self._model(rung) is not None:
                return
        raise self._none_in_service()

    async def score(self, texts: Sequence[str]) -> Scores:
        """Return who scored (``model_version``) and the sentiment of each text, in order; all by one model.

        Raises what the last model raised, or ModelError when none is in service.
        """
        if not texts:
            return "", []
        failure: Exception = self._none_in_service()
        async with self._turn:
            for rung in self._rungs:
                rung.batches += 1
                try:
                    scores = await self._score_with(rung, texts)
                except Exception as error:
                    # Whatever a model raises, the next one is asked.
                    failure = error
                    continue
                finally:
                    rung.batches -= 1
                if scores is not None:
                    self._release_below(rung)
                    return scores
        raise failure

    async def close(self) -> None:
        """Give back all models and end what is loading."""
        for rung in self._rungs:
            _release(rung)
        await asyncio.gather(*(rung.bringing for rung in self._rungs if rung.bringing), return_exceptions=True)

    def _none_in_service(self) -> ModelError:
        return ModelError(f"no model is in service ({', '.join(self.names)}): see the log for why")

    async def _model(self, rung: _Rung) -> SentimentModel | None:
        """Return the rung's model if it is in service, after the first attempt to load it."""
        if rung.bringing is None:
            rung.bringing = asyncio.create_task(self._bring(rung), name=f"model {rung.name}")
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await rung.tried.wait()
        except TimeoutError:
            # The attempt goes on, and nobody waits for it any longer.
            rung.tried.set()
            self._on_error(rung.name, ModelError(f"loading took over {self._deadline_seconds:g} s", "deadline"))
        return rung.model

    async def _score_with(self, rung: _Rung, texts: Sequence[str]) -> Scores | None:
        """Return the scores by this model, None while it is not in service; one that fails is taken out of it."""
        model = await self._model(rung)
        if model is None:
            return None
        try:
            return model.model_version, await self._run(rung, model, texts)
        except Exception as error:
            self._take_out(rung, model, error)
            raise

    async def _bring(self, rung: _Rung) -> None:
        """Load the model, and again until it is in service."""
        while rung.model is None:
            if rung.failures:
                await asyncio.sleep(self._wait_seconds(rung))
            try:
                model = await asyncio.to_thread(self._loaded, rung)
            except Exception as error:
                rung.failures += 1
                self._on_error(rung.name, _explained(error, rung.name, "load"))
            else:
                rung.model = model
                rung.in_service_since = self._clock()
                rung.posts, rung.mean_ms = 0, 0.0
                self._on_service(rung.name, model.model_version)
            finally:
                rung.tried.set()

    def _loaded(self, rung: _Rung) -> SentimentModel:
        """Return the model, which scores; in a thread."""
        _trim_memory()
        model = rung.load()
        try:
            refuse_unusable(model.score(PROBES[:1]), PROBES[:1])
            began = self._clock()
            refuse_unusable(model.score(PROBES[1:]), PROBES[1:])
            if rung.was_slow:
                self._refuse_slow(rung, (self._clock() - began) * 1000 / len(PROBES[1:]))
        except Exception:
            model.close()
            raise
        return model

    async def _run(self, rung: _Rung, model: SentimentModel, texts: Sequence[str]) -> list[Sentiment]:
        began = self._clock()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                sentiments = await asyncio.to_thread(model.score, texts)
        except TimeoutError as error:
            raise ModelError(f"{len(texts)} posts took over {self._deadline_seconds:g} s", "deadline") from error
        refuse_unusable(sentiments, texts)
        seconds = self._clock() - began
        self._on_inference(rung.name, len(texts), seconds)
        if model is rung.model:
            self._judge(rung, model, len(texts), seconds * 1000 / len(texts))
        return sentiments

    def _judge(self, rung: _Rung, model: SentimentModel, posts: int, ms: float) -> None:
        """Take a model out that is too slow in the mean; what it has scored counts."""
        rung.posts += posts
        rung.mean_ms += (ms - rung.mean_ms) * min(1.0, posts / min(rung.posts, SLOW_POSTS))
        if rung is self._rungs[-1] or rung.posts < SLOW_POSTS:
            return
        try:
            self._refuse_slow(rung, rung.mean_ms)
        except ModelError as error:
            self._take_out(rung, model, error)

    def _refuse_slow(self, rung: _Rung, ms: float) -> None:
        limit = self._max_ms_per_post
        if limit is not None and ms > limit:
            raise ModelError(f"{rung.name} takes {ms:.1f} ms a post, over the {limit:g} ms that are allowed", "slow")

    def _take_out(self, rung: _Rung, model: SentimentModel, error: Exception) -> None:
        if model is not rung.model:
            # Another batch has seen to it.
            return
        explained = _explained(error, rung.name, "exception")
        # One that served for a while begins anew.
        lasted = self._clock() - rung.in_service_since > 2 * self._wait_seconds(rung)
        rung.failures = 1 if lasted else rung.failures + 1
        rung.was_slow = explained.error_type == "slow"
        rung.model = None
        model.close()
        rung.bringing = asyncio.create_task(self._bring(rung), name=f"model {rung.name}")
        self._on_error(rung.name, explained)

    def _wait_seconds(self, rung: _Rung) -> float:
        # 2**1023 is the largest power that a float holds.
        doubled = self._first_wait_seconds * 2.0 ** min(max(rung.failures - 1, 0), 64)
        return min(self._longest_wait_seconds, doubled)

    def _release_below(self, rung: _Rung) -> None:
        """Free the memory of models that are not needed any more."""
        below = self._rungs.index(rung) + 1
        for number, lower in enumerate(self._rungs[below:], below):
            if lower.bringing is not None and not lower.batches:
                _release(lower)
                self._rungs[number] = _Rung(lower.name, lower.load)


def _release(rung: _Rung) -> None:
    if rung.bringing is not None:
        rung.bringing.cancel()
    if rung.model is not None:
        rung.model.close()
        rung.model = None


def _trim_memory() -> None:
    """Give memory of models before back to the system: glibc keeps it, and would take more at every load."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _explained(error: Exception, name: str, error_type: str) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(f"{name} failed: {type(error).__name__}: {error}", error_type)
