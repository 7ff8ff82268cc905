"""Accuracy, macro-F1 and AUC of the shipped models and of VADER, alone and with the crypto vocabulary.

    python bench/accuracy.py [--threads 2] [--limit ROWS]

The sets are those in ../shared/data/sentiment that the models' card names, read in the card's way: grades by their
sign; the predicted class is the model's likeliest label (VADER: compound score from 0.05 on positive, to -0.05
negative, its documentation's thresholds); AUC is bullish against bearish by polarity, neutral rows left out.

Every text is scored as the pipeline scores it. Rows "card's batches" run the stored graph as it was run for the card:
padded batches of 32, shortest texts first, whose quantised activations depend on their neighbours. Fails where these
are under the card by more than rounding, or the pipeline's scores by more than 0.004: the same weights with no
activation quantised are up to 0.006 under it, so that is chance and not what a model knows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_svc.graph import session_options
from scorer_svc.model_files import GRAPH, TOKENIZER, find_model
from scorer_svc.model_store import load_model
from scorer_svc.sentiment import Label, Sentiment, SentimentModel
from scorer_svc.vader_model import VaderModel

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment"
LABELS: tuple[Label, ...] = ("negative", "neutral", "positive")
CLASSES: dict[str, Label] = {"bearish": "negative", "neutral": "neutral", "bullish": "positive"}
SETS = ("finance-tweets-validation", "stock-tweets-1000", "crypto-posts-graded")
# Accuracy, macro-F1, AUC by the models' card, set by set.
CARD = {
    "sentimesh-base": ((0.870, 0.834, 0.978), (0.788, 0.778, 0.927), (0.702, 0.652, 0.862)),
    "sentimesh-mini": ((0.854, 0.813, 0.969), (0.779, 0.768, 0.920), (0.683, 0.633, 0.838)),
    "vader": ((0.494, 0.447, 0.739), (0.407, 0.392, 0.604), (0.403, 0.386, 0.654)),
}
TOLERANCE, ROUNDING = 0.004, 0.0006
BATCH = 256
CARDS_BATCH, CARDS_WAY = 32, " card's batches"
BAR = 50

Figures = tuple[float, float, float]
NO_CARD: tuple[Figures | None, ...] = (None, None, None)


def labelled(path: Path) -> list[tuple[str, Label]]:
    """Return the texts of a set with their class."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(row["text"], by_sign(row["grade"]) if "grade" in row else CLASSES[row["label"]]) for row in rows]


def by_sign(grade: int) -> Label:
    """Return the class of a grade from -2 to 2."""
    return LABELS[int(np.sign(grade)) + 1]


def accuracy(truth: Sequence[Label], predicted: Sequence[Label]) -> float:
    """Return the share of rows whose class was predicted."""
    return sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth)


def macro_f1(truth: Sequence[Label], predicted: Sequence[Label]) -> float:
    """Return the mean of the classes' F1; a class that neither side has counts 0."""
    pairs = list(zip(truth, predicted, strict=True))
    scores = []
    for label in LABELS:
        hits = sum(a == b == label for a, b in pairs)
        wrong = sum((a == label) != (b == label) for a, b in pairs)
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return sum(scores) / len(scores)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the probability that a score of ``positive`` is above one of ``negative``; a tie counts half.

    NaN where one of them is empty.
    """
    if not positive or not negative:
        return float("nan")
    below = np.sort(np.asarray(negative))
    scores: NDArray[np.float64] = np.asarray(positive)
    wins = np.searchsorted(below, scores, "left") + np.searchsorted(below, scores, "right")
    return float(wins.mean()) / 2 / len(negative)


def figures(truth: Sequence[Label], scored: Sequence[Sentiment]) -> Figures:
    """Return accuracy, macro-F1 and AUC."""
    predicted = [sentiment.label for sentiment in scored]
    ranked: dict[Label, list[float]] = {label: [] for label in LABELS}
    for label, sentiment in zip(truth, scored, strict=True):
        ranked[label].append(sentiment.polarity)
    return accuracy(truth, predicted), macro_f1(truth, predicted), auc(ranked["positive"], ranked["negative"])


class CardsBatches:
    """A shipped model as its card ran it; give it a whole set."""

    def __init__(self, name: str, threads: int) -> None:
        model = find_model(name)
        options = session_options()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model.folder / GRAPH, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
        self._labels = model.labels

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order."""
        scored: dict[int, Sentiment] = {}
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        for first in range(0, len(order), CARDS_BATCH):
            batch = order[first : first + CARDS_BATCH]
            encoded = self._tokenizer.encode_batch([texts[position] for position in batch])
            ids, mask = np.array([e.ids for e in encoded]), np.array([e.attention_mask for e in encoded])
            logits = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0].astype(np.float64)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            for position, row in zip(batch, powers / powers.sum(axis=1, keepdims=True), strict=True):
                p = dict(zip(self._labels, row.tolist(), strict=True))
                likeliest = max(p, key=p.__getitem__)
                scored[position] = Sentiment(p["positive"] - p["negative"], 1.0 - p["neutral"], likeliest)
        return [scored[position] for position in range(len(texts))]


Scorer = SentimentModel | CardsBatches


def models(threads: int) -> dict[str, Callable[[], Scorer]]:
    """Return what is compared, each loaded when its turn comes."""
    return {
        "sentimesh-base": lambda: load_model("sentimesh-base", threads=threads),
        "sentimesh-mini": lambda: load_model("sentimesh-mini", threads=threads),
        "sentimesh-base" + CARDS_WAY: lambda: CardsBatches("sentimesh-base", threads),
        "sentimesh-mini" + CARDS_WAY: lambda: CardsBatches("sentimesh-mini", threads),
        "vader": lambda: VaderModel(()),
        "vader with vocabulary": VaderModel,
    }


def measure(model: Scorer, rows: Sequence[tuple[str, Label]]) -> tuple[Figures, float]:
    """Return the figures of a model on a set, and the milliseconds a post it took (wall clock)."""
    started = time.perf_counter()
    texts = [text for text, _ in rows]
    at_once = len(texts) if isinstance(model, CardsBatches) else BATCH
    scored = [s for first in range(0, len(texts), at_once) for s in model.score(texts[first : first + at_once])]
    took_ms = (time.perf_counter() - started) * 1000
    return figures([label for _, label in rows], scored), took_ms / len(rows)


def plot(measured: dict[str, dict[str, Figures]]) -> None:
    """Draw the three figures of every set as bars, 0 to 1."""
    for index, what in enumerate(("accuracy", "macro-F1", "AUC")):
        print(f"\n{what:<31}0{' ' * (BAR // 2 - 2)}0.5{' ' * (BAR // 2 - 2)}1")
        for name, by_model in measured.items():
            print(name)
            for model, values in by_model.items():
                filled = round(np.nan_to_num(values[index]) * BAR)
                print(f"  {model:<29}{'█' * filled}{'·' * (BAR - filled)} {values[index]:.3f}")


def main() -> int:
    """Print the table as it is measured, then the plot; 1 where a shipped model is under its card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="texts scored at once")
    parser.add_argument(
        "--limit", type=int, help="only the first rows of each set, for a try: not compared to the card"
    )
    arguments = parser.parse_args()
    here = {name: DATA / f"{name}.jsonl" for name in SETS if (DATA / f"{name}.jsonl").is_file()}
    for name in SETS:
        if name not in here:
            print(f"../shared/data/sentiment/{name}.jsonl is not here: left out")
    measured: dict[str, dict[str, Figures]] = {name: {} for name in here}
    under = 0
    print(f"{'set':<26} {'model':<29} {'rows':>5} {'accuracy':>9} {'macro-F1':>9} {'AUC':>6} {'ms/post':>8}  card")
    for model, load in models(arguments.threads).items():
        loaded = load()
        for name, path in here.items():
            rows = labelled(path)[: arguments.limit]
            found, ms = measure(loaded, rows)
            measured[name][model] = found
            row = f"{name:<26} {model:<29} {len(rows):>5} {found[0]:>9.3f} {found[1]:>9.3f} {found[2]:>6.3f} {ms:>8.2f}"
            card = CARD.get(model.removesuffix(CARDS_WAY), NO_CARD)[SETS.index(name)] if not arguments.limit else None
            allowed = ROUNDING if model.endswith(CARDS_WAY) else TOLERANCE
            low = card is not None and any(a < b - allowed for a, b in zip(found, card, strict=True))
            under += low
            print(
                row, "", " / ".join(f"{value:.3f}" for value in card or ()), "UNDER ITS CARD" if low else "", flush=True
            )
    plot(measured)
    return 1 if under else 0


if __name__ == "__main__":
    sys.exit(main())
