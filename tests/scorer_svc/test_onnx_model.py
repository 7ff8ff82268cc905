from __future__ import annotations

import dataclasses
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_svc.graph import session_options
from scorer_svc.model_files import find_model
from scorer_svc.onnx_model import OnnxModel
from scorer_svc.sentiment import ModelError, Sentiment
from tests.scorer_svc.bert import bert_graph

# The 23 MB graphs cost tens of milliseconds a text on a slow core: few texts, and the small model.
TEXTS = [
    "$BTC to the moon 🚀🚀",
    "Bitcoin crashes below support, everyone is selling, it is over",
    "How do I move coins from one wallet to another?",
    "gm",
    "",
    "https://example.com/only-a-link",
    "ETH looks weak against BTC but the merge went well and fees are down for the third week in a row, so I am adding",
    "Just got liquidated. Never again.",
    "比特币 новости ₿ \u200b\ufe0f",
    "bull " * 400,
]


@pytest.fixture(scope="module")
def mini() -> Iterator[OnnxModel]:
    model = OnnxModel(find_model("sentimesh-mini"), threads=2)
    yield model
    model.close()


@pytest.fixture(scope="module")
def alone() -> dict[str, Sentiment]:
    """Each text by itself, on one thread, with nothing kept."""
    model = OnnxModel(find_model("sentimesh-mini"), cache_size=0)
    return {text: model.score([text])[0] for text in TEXTS}


def _counted(run: Callable[..., object], sizes: list[int], names: None, inputs: dict[str, NDArray[np.int64]]) -> object:
    sizes.append(len(inputs["input_ids"]))
    return run(names, inputs)


def test_a_graph_of_floats_runs_in_buckets_and_company_changes_only_rounding(tmp_path: Path) -> None:
    folder = tmp_path / "floats"
    shutil.copytree(find_model("sentimesh-mini").folder, folder)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    graph = bert_graph(layers=2, hidden=64, heads=4, vocabulary=vocabulary)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "activation_ranges.json").unlink()
    model = OnnxModel(find_model(str(folder)), threads=2, cache_size=0)
    sizes: list[int] = []
    run = model._session.run
    texts = [f"{text} {word}" for text in TEXTS for word in ("now", "never", "later", "again")]
    singly = [model.score([text])[0] for text in texts]
    model._session = SimpleNamespace(run=partial(_counted, run, sizes))
    together = model.score(texts)
    assert max(sizes) >= 4
    assert len({score.polarity for score in singly}) > 10
    for one, other in zip(singly, together, strict=True):
        assert math.isclose(one.polarity, other.polarity, abs_tol=1e-5)
        assert math.isclose(one.confidence, other.confidence, abs_tol=1e-5)
    model.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_texts_score_is_bit_identical_in_any_company_and_order(alone: dict[str, Sentiment], seed: int) -> None:
    rng = random.Random(seed)
    texts = rng.sample(TEXTS, len(TEXTS)) + rng.sample(TEXTS, 3)
    company = [" ".join(rng.choices(("bull", "sell", "btc", "now"), k=rng.randint(1, 60))) for _ in range(40)]
    together = rng.sample(texts + company, len(texts) + len(company))
    for threads in (1, 2):
        model = OnnxModel(find_model("sentimesh-mini"), threads=threads, cache_size=0)
        sizes: list[int] = []
        run = model._session.run
        model._session = SimpleNamespace(run=partial(_counted, run, sizes))
        scores = dict(zip(together, model.score(together), strict=True))
        assert max(sizes) > 2
        assert {text: scores[text] for text in texts} == {text: alone[text] for text in texts}
        model.close()


def test_the_cache_changes_no_score(mini: OnnxModel, alone: dict[str, Sentiment]) -> None:
    for _ in range(2):
        assert mini.score(TEXTS) == [alone[text] for text in TEXTS]


def test_scores_are_the_softmax_of_the_graph_run_on_that_text(alone: dict[str, Sentiment]) -> None:
    """An independent reading of the outputs of the graph as it is stored: its whole last layer, ranges as they come."""
    folder = find_model("sentimesh-mini").folder
    session = onnxruntime.InferenceSession(folder / "model.onnx", session_options(), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, sentiment in alone.items():
        ids = np.array([tokenizer.encode(text).ids])
        [logits] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        negative, neutral, positive = np.exp(logits) / np.exp(logits).sum()
        # What the two ways to quantise may differ by; a class at the wrong place differs by much more.
        assert sentiment.polarity == pytest.approx(positive - negative, abs=0.06)
        assert sentiment.confidence == pytest.approx(1 - neutral, abs=0.06)
        assert sentiment.label == ("negative", "neutral", "positive")[int(np.argmax(logits))]


def test_scores_are_in_range_and_say_what_a_reader_would(alone: dict[str, Sentiment]) -> None:
    for sentiment in alone.values():
        assert -1.0 <= sentiment.polarity <= 1.0
        assert 0.0 <= sentiment.confidence <= 1.0
    assert alone[TEXTS[0]].label == "positive"
    assert alone[TEXTS[1]].label == "negative"
    assert alone[TEXTS[2]].label == "neutral"


def test_the_base_model_scores_too() -> None:
    model = OnnxModel(find_model("sentimesh-base"))
    assert model.model_version == "sentimesh-base-2.1"
    assert [sentiment.label for sentiment in model.score(TEXTS[:2])] == ["positive", "negative"]


def test_texts_the_tokenizer_cannot_tell_apart_run_once() -> None:
    counts: list[tuple[int, int]] = []
    model = OnnxModel(find_model("sentimesh-mini"), on_scored=lambda hits, misses: counts.append((hits, misses)))
    same = ["@alice BTC is up", "@bob   btc is UP https://t.co/x", "@carol BTC is up"]
    first, *others = model.score([*same, "BTC is down"])
    assert others[:2] == [first, first]
    assert model.score(["@dave BTC is up"]) == [first]
    assert counts == [(2, 2), (1, 0)]


def test_the_cache_is_bounded_and_forgets_the_least_recently_used() -> None:
    counts: list[tuple[int, int]] = []
    model = OnnxModel(
        find_model("sentimesh-mini"), cache_size=2, on_scored=lambda hits, misses: counts.append((hits, misses))
    )
    for text in ("one", "two", "one", "three", "one", "two"):
        model.score([text])
    # "one" stays in use; "two" makes room for "three" and runs again.
    assert counts == [(0, 1), (0, 1), (1, 0), (0, 1), (1, 0), (0, 1)]


def test_a_batch_larger_than_the_cache_is_scored(alone: dict[str, Sentiment]) -> None:
    model = OnnxModel(find_model("sentimesh-mini"), cache_size=1)
    assert model.score(TEXTS[:3] * 2) == [alone[text] for text in TEXTS[:3] * 2]


def test_a_device_that_is_not_there_is_refused() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime can compute on cuda")
    with pytest.raises(ModelError, match=r"cannot compute on cuda: .* set model.inference_device to cpu"):
        OnnxModel(find_model("sentimesh-mini"), device="cuda")


def test_a_closed_model_scores_nothing() -> None:
    model = OnnxModel(find_model("sentimesh-mini"))
    model.close()
    with pytest.raises(RuntimeError):
        model.score(["gm"])


def test_other_threads_go_on_while_a_long_text_is_read() -> None:
    """encode() would hold the GIL for as long as it takes."""
    model = OnnxModel(find_model("sentimesh-mini"))
    text = "bitcoin to the moon and sell now " * 20_000
    reading = threading.Thread(target=model.score, args=([text],))
    reading.start()
    rounds = 0
    while reading.is_alive():
        rounds += 1
        time.sleep(0.001)
    model.close()
    # Seconds of reading; with the GIL held it is one or two.
    assert rounds > 20


def test_a_text_is_cut_after_max_length_tokens(mini: OnnxModel) -> None:
    short = OnnxModel(find_model("sentimesh-mini"), max_length=4)
    [cut] = short.score(["sell now" + " bitcoin" * 30])
    assert mini.score(["sell now"]) == [cut]


@pytest.mark.parametrize("max_length", [0, 2, 513])
def test_a_length_the_model_cannot_take_is_refused(max_length: int) -> None:
    with pytest.raises(ModelError, match=f"max_length is {max_length}: .* takes 3 to 512 tokens"):
        OnnxModel(find_model("sentimesh-mini"), max_length=max_length)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    model = dataclasses.replace(find_model("sentimesh-mini"), folder=tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="cannot be loaded") as raised:
        OnnxModel(model)
    assert raised.value.error_type == "load"
    for name in ("model.onnx", "activation_ranges.json"):
        shutil.copy(find_model("sentimesh-mini").folder / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxModel(model)


class FakeSession:
    """Answers like a graph would that has gone wrong."""

    def __init__(self, answer: NDArray[np.float32] | Exception) -> None:
        self.answer = answer

    def run(self, _outputs: None, _inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer]


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        (np.array([[0.0, math.nan, 0.0]], dtype=np.float32), "non_finite"),
        (np.array([[0.0, math.inf, 0.0]], dtype=np.float32), "non_finite"),
        (np.zeros((1, 2), dtype=np.float32), "shape"),
        (np.zeros((1, 9, 3), dtype=np.float32), "shape"),
        (RuntimeError("out of memory"), "inference"),
    ],
)
def test_an_unusable_answer_is_an_error_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, answer: NDArray[np.float32] | Exception, error_type: str
) -> None:
    model = OnnxModel(find_model("sentimesh-mini"))
    with monkeypatch.context() as patch:
        patch.setattr(model, "_session", FakeSession(answer))
        with pytest.raises(ModelError) as raised:
            model.score(["gm"])
        assert raised.value.error_type == error_type
    [sentiment] = model.score(["gm"])
    assert math.isfinite(sentiment.polarity)


def test_extreme_outputs_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnnxModel(find_model("sentimesh-mini"))
    monkeypatch.setattr(model, "_session", FakeSession(np.array([[-3e38, 0.0, 3e38]], dtype=np.float32)))
    assert model.score(["gm"]) == [Sentiment(1.0, 1.0, "positive")]


def test_no_texts_no_scores(mini: OnnxModel) -> None:
    assert mini.score([]) == []
