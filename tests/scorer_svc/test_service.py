from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from functools import partial

import pytest

from scorer_svc.engagement import engagement_weight
from scorer_svc.ladder import ModelLadder
from scorer_svc.model_store import load_model
from scorer_svc.sentiment import ModelError, Sentiment, SentimentModel
from scorer_svc.service import ScorerStage
from scorer_svc.shadow import Comparison, Shadow
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.stage import Delivery, Forward, Outcome, Reject


class FixedModel:
    """Gives every text the same polarity, or fails on those with a word in them."""

    def __init__(self, model_version: str, polarity: float, fails_on: str | None = None) -> None:
        self.model_version = model_version
        self.polarity = polarity
        self.fails_on = fails_on
        self.threads: set[int] = set()

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        self.threads.add(threading.get_ident())
        if self.fails_on is not None and any(self.fails_on in text for text in texts):
            raise ModelError(f"{self.model_version} failed", "non_finite")
        return [Sentiment(self.polarity, 0.75, "neutral") for _ in texts]

    def close(self) -> None:
        """There is nothing to give back."""


def stage_of(*models: SentimentModel) -> ScorerStage:
    """A stage of these models, each under its version's name."""
    return ScorerStage(ModelLadder([(model.model_version, partial(given, model)) for model in models]))


def given(model: SentimentModel) -> SentimentModel:
    return model


def make_post(
    post_id: str = "twitter:1", text: str = "gm", *, symbol: str = "BTC", credibility: float = 0.5
) -> FilteredPost:
    engagement = SocialPost.EngagementMetrics(likes=3, reposts=2)
    post = SocialPost(post_id=post_id, symbol=symbol, text=text, engagement=engagement)
    return FilteredPost(post=post, credibility_score=credibility)


async def run(stage: ScorerStage, posts: Sequence[FilteredPost]) -> list[Outcome]:
    outcomes = await stage.process([Delivery(post, sequence) for sequence, post in enumerate(posts, 1)])
    assert all(len(of_one) == 1 for of_one in outcomes)
    return [of_one[0] for of_one in outcomes]


def scored(outcome: Outcome) -> ScoredPost:
    assert isinstance(outcome, Forward)
    assert isinstance(outcome.message, ScoredPost)
    return outcome.message


async def test_a_post_gets_its_sentiment_weight_and_model_and_keeps_its_credibility() -> None:
    filtered = make_post(symbol="ETH", credibility=0.875)
    [outcome] = await run(stage_of(FixedModel("fixed-1", -0.25)), [filtered])
    assert isinstance(outcome, Forward)
    assert (outcome.symbol, outcome.identity) == ("ETH", "twitter:1")
    message = scored(outcome)
    assert message.post == filtered.post
    assert (message.polarity, message.confidence, message.credibility_score) == (-0.25, 0.75, 0.875)
    assert message.engagement_weight == pytest.approx(engagement_weight(filtered.post.engagement))
    assert message.model_version == "fixed-1"


async def test_the_next_model_scores_the_whole_of_a_batch_that_failed() -> None:
    stage = stage_of(FixedModel("first-1", 0.5, fails_on="bad"), FixedModel("second-1", -0.5))
    passed = await run(stage, [make_post("twitter:3", "fine")])
    failed = await run(stage, [make_post("twitter:1", "bad"), make_post("twitter:2", "fine")])
    assert [(scored(o).model_version, scored(o).polarity) for o in failed] == [("second-1", -0.5)] * 2
    assert scored(passed[0]).model_version == "first-1"
    await stage.close()


async def test_when_no_model_answers_the_batch_is_an_error_to_be_tried_again() -> None:
    stage = stage_of(FixedModel("first-1", 0.5, fails_on="bad"), FixedModel("second-1", 0.5, fails_on="bad"))
    with pytest.raises(ModelError, match="second-1 failed"):
        await run(stage, [make_post(text="bad")])
    with pytest.raises(ModelError, match="no model is in service"):
        await run(stage, [make_post(text="fine")])
    await stage.close()


async def test_the_event_loop_goes_on_while_a_model_computes() -> None:
    class Waiting(FixedModel):
        """Computes until the event loop has done something else."""

        released = threading.Event()

        def score(self, texts: Sequence[str]) -> list[Sentiment]:
            assert self.released.wait(60)
            return super().score(texts)

    model = Waiting("waiting-1", 0.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(stage_of(model), [make_post()]))
        group.create_task(asyncio.to_thread(lambda: None)).add_done_callback(lambda _: model.released.set())
    assert scored(task.result()[0]).model_version == "waiting-1"
    assert threading.get_ident() not in model.threads


@pytest.mark.parametrize(
    ("post", "fault"),
    [
        (FilteredPost(credibility_score=0.5), "no post_id"),
        (make_post(""), "no post_id"),
        (make_post(symbol="btc"), "symbol 'btc'"),
        (make_post(symbol=""), "symbol ''"),
        (make_post(credibility=math.nan), "credibility_score of nan"),
        (make_post(credibility=1.5), r"credibility_score of 1.5"),
        (make_post(credibility=-0.5), "credibility_score of -0.5"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_rejected_and_costs_the_others_nothing(post: FilteredPost, fault: str) -> None:
    stage = stage_of(FixedModel("fixed-1", 0.5))
    before, rejected, after = await run(stage, [make_post("twitter:8"), post, make_post("twitter:9")])
    assert isinstance(rejected, Reject)
    assert fault in rejected.reason
    assert [scored(outcome).post.post_id for outcome in (before, after)] == ["twitter:8", "twitter:9"]
    assert isinstance((await run(stage, [post]))[0], Reject)


async def test_a_session_scores_as_its_stage_does() -> None:
    stage = stage_of(FixedModel("fixed-1", 0.5))
    assert await run(stage.session(), [make_post()]) == await run(stage, [make_post()])
    assert await stage.tick() == ()


async def test_real_models_in_order_of_preference() -> None:
    stage = stage_of(load_model("sentimesh-mini"), load_model("vader"))
    texts = ["$SOL breaking out, new all time high soon", "exchange hacked, all funds are gone"]
    bullish, bearish = await run(stage, [make_post(f"reddit:{i}", text) for i, text in enumerate(texts)])
    assert scored(bullish).polarity > 0.5
    assert scored(bearish).polarity < -0.5
    assert scored(bullish).model_version == "sentimesh-mini-2.1"


async def test_what_a_client_tries_out_is_not_compared_with_a_second_model() -> None:
    compared: list[Comparison] = []
    ladders = [stage_of(FixedModel(version, 0.5)).models for version in ("first-1", "other-1")]
    shadow = Shadow(ladders[1], 1.0, on_comparison=compared.append)
    stage = ScorerStage(ladders[0], shadow)
    await stage.start()
    await run(stage.session(), [make_post("twitter:1")])
    await run(stage, [make_post("twitter:2"), make_post("twitter:3", symbol="btc")])
    while not compared:  # noqa: ASYNC110 (the shadow model is waited for)
        await asyncio.sleep(0.005)
    await stage.close()
    assert compared == [Comparison("first-1", "other-1", same_label=True, difference=0.0)]
