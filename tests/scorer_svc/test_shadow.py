from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence

import pytest

from scorer_svc.ladder import PROBES, ModelLadder
from scorer_svc.sentiment import Label, ModelError, Sentiment, SentimentModel
from scorer_svc.shadow import SUMMARY_SECONDS, Agreement, Comparison, Shadow, in_sample

SCORED = Sentiment(0.25, 0.5, "positive")


class Second:
    """Gives a text the polarity that is written in it; waits, or fails, as told."""

    model_version = "second-1"

    def __init__(self) -> None:
        self.released = threading.Event()
        self.released.set()
        self.fails = False
        self.asked = 0

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        if tuple(texts) in (PROBES[:1], PROBES[1:]):
            return [SCORED for _ in texts]
        self.asked += len(texts)
        self.released.wait()
        if self.fails:
            raise ModelError("no", "inference")
        return [Sentiment(float(text), 0.5, label(float(text))) for text in texts]

    def close(self) -> None:
        """There is nothing to give back."""


def label(polarity: float) -> Label:
    return "positive" if polarity > 0 else "negative"


def ladder_of(model: SentimentModel) -> ModelLadder:
    return ModelLadder([("second", lambda: model)], first_wait_seconds=0.001)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (threads of the model are waited for)
        await asyncio.sleep(0.005)


def test_the_sample_is_that_share_of_all_posts_and_the_same_everywhere() -> None:
    ids = [f"twitter:{number}" for number in range(20_000)]
    small, large = ({i for i in ids if in_sample(i, share)} for share in (0.05, 0.3))
    assert len(small) == pytest.approx(1000, abs=150)
    assert len(large) == pytest.approx(6000, abs=350)
    assert small < large
    assert not any(in_sample(i, 0.0) for i in ids)
    assert all(in_sample(i, 1.0) for i in ids)
    # Fixed: another process, another machine, another version.
    chosen = [number for number in range(60) if in_sample(f"twitter:{number}", 0.05)]
    assert chosen == [1, 4, 16, 54, 55]


async def test_agreement_is_that_of_the_two_models() -> None:
    compared: list[Comparison] = []
    summaries: list[tuple[str, str, Agreement]] = []
    now = 0.0
    shadow = Shadow(
        ladder_of(Second()),
        1.0,
        on_comparison=compared.append,
        on_summary=lambda *summary: summaries.append(summary),
        clock=lambda: now,
    )
    shadow.start()
    rng = random.Random(3)
    polarities = [round(rng.uniform(-1, 1), 3) for _ in range(100)]
    for number, polarity in enumerate(polarities[:-1]):
        shadow.offer(f"twitter:{number}", str(polarity), "first-1", SCORED)
    await until(lambda: len(compared) == 99)
    assert summaries == []
    now = SUMMARY_SECONDS
    shadow.offer("twitter:99", str(polarities[99]), "first-1", SCORED)
    await until(lambda: bool(summaries))
    [(model, other, agreement)] = summaries
    assert (model, other, agreement.posts) == ("first-1", "second-1", 100)
    assert agreement.same_label_share == sum(polarity > 0 for polarity in polarities) / 100
    assert agreement.mean_difference == pytest.approx(sum(abs(0.25 - polarity) for polarity in polarities) / 100)
    assert [c.difference for c in compared] == pytest.approx([abs(0.25 - polarity) for polarity in polarities])
    assert {(c.model_version, c.shadow_version) for c in compared} == {("first-1", "second-1")}
    # The rest is told at the end, by who scored.
    shadow.offer("twitter:100", "1.0", "vader", SCORED)
    await until(lambda: len(compared) == 101)
    await shadow.close()
    assert [(m, o, a.posts) for m, o, a in summaries[1:]] == [("vader", "second-1", 1)]


async def test_posts_for_which_there_is_no_room_are_left_out_and_counted() -> None:
    compared: list[Comparison] = []
    left_out: list[int] = []
    second = Second()
    shadow = Shadow(ladder_of(second), 1.0, on_comparison=compared.append, on_left_out=left_out.append, posts_held=4)
    shadow.start()
    second.released.clear()
    shadow.offer("twitter:0", "0.5", "first-1", SCORED)
    await until(lambda: second.asked == 1)
    # The second model does not answer; whoever offers is not held up.
    for number in range(1, 11):
        shadow.offer(f"twitter:{number}", "0.5", "first-1", SCORED)
    assert sum(left_out) == 6
    second.released.set()
    await until(lambda: len(compared) == 5)
    await shadow.close()
    assert sum(left_out) == 6


async def test_a_second_model_that_fails_costs_its_own_comparisons_only() -> None:
    compared: list[Comparison] = []
    left_out: list[int] = []
    second = Second()
    shadow = Shadow(ladder_of(second), 1.0, on_comparison=compared.append, on_left_out=left_out.append)
    shadow.start()
    second.fails = True
    shadow.offer("twitter:0", "0.5", "first-1", SCORED)
    await until(lambda: left_out == [1])
    second.fails = False
    offered = 0
    while not compared:
        offered += 1
        shadow.offer(f"twitter:{offered}", "0.5", "first-1", SCORED)
        await asyncio.sleep(0.005)
    await until(lambda: len(compared) + sum(left_out) == offered + 1)
    await shadow.close()
