"""The figures of bench/accuracy.py, against their definitions written out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.accuracy import LABELS, auc, by_sign, figures, macro_f1
from scorer_svc.sentiment import Label, Sentiment

SCORES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=8)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs_in_the_right_order_and_ties_count_half(
    positive: list[float], negative: list[float]
) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_of_one_class_is_no_number() -> None:
    assert math.isnan(auc([], [0.5]))
    assert math.isnan(auc([0.5], []))


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=12))
def test_macro_f1_is_the_mean_of_the_harmonic_means_of_precision_and_recall(rows: list[tuple[Label, Label]]) -> None:
    scores = []
    for label in LABELS:
        hits = sum(truth == predicted == label for truth, predicted in rows)
        predictions, members = sum(p == label for _, p in rows), sum(t == label for t, _ in rows)
        precision = hits / predictions if predictions else 0.0
        recall = hits / members if members else 0.0
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert macro_f1([t for t, _ in rows], [p for _, p in rows]) == pytest.approx(sum(scores) / 3)


def test_grades_are_taken_by_their_sign() -> None:
    assert [by_sign(grade) for grade in (-2, -1, 0, 1, 2)] == [
        *("negative", "negative", "neutral", "positive", "positive"),
    ]


def test_neutral_rows_count_for_accuracy_and_not_for_auc() -> None:
    truth: list[Label] = ["positive", "negative", "neutral", "neutral"]
    scored = [
        Sentiment(0.9, 0.9, "positive"),
        Sentiment(0.1, 0.2, "neutral"),
        Sentiment(1.0, 1.0, "positive"),
        Sentiment(0.0, 0.0, "neutral"),
    ]
    accuracy, _, ranking = figures(truth, scored)
    assert (accuracy, ranking) == (0.5, 1.0)
