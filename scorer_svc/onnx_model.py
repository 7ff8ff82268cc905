"""A BERT-like classifier as an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_svc.buckets import buckets, filled_length
from scorer_svc.graph import PROVIDERS, open_graph, refuse_missing_device
from scorer_svc.model_files import GRAPH, TOKENIZER, ModelFiles
from scorer_svc.score_cache import ScoreCache
from scorer_svc.sentiment import Device, ModelError, Sentiment

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOKEN_ID = np.dtype(np.int64)


class OnnxModel:
    """Scores texts with the model of a folder; a text's score depends on that text and on nothing else.

    Texts of like length run together (:func:`buckets`), several such runs at once. With activations made int8 by
    fixed ranges a score is the same to the bit in any company, as the shipped models' are; with floats company is
    rounding, under 1e-5. An int8 graph without ranges takes each from the whole batch, so that a score would depend
    on its neighbours (by up to 0.2 in polarity): there each text runs alone and unpadded. Texts that are the same to
    the tokenizer run once while the cache holds them.
    """

    def __init__(
        self,
        model: ModelFiles,
        *,
        threads: int = 1,
        batch_size: int = 32,
        max_length: int = 128,
        cache_size: int = 32_768,
        device: Device = "cpu",
        on_scored: Callable[[int, int], None] = lambda _hits, _misses: None,
    ) -> None:
        """Load the model.

        ``threads``: runs at once, each on one core. ``batch_size``: texts a run, at most. A text is cut after
        ``max_length`` tokens, ``cache_size`` scores are kept (0.6 kB each).
        ``on_scored(hits, misses)`` is told of each call, in its thread: how many texts were answered without a run of
        their own, and how many ran. Raises ModelError when the files do not make a classifier, or for the device.
        """
        self.model_version = model.version
        self._labels = model.labels
        self._graph = model.folder / GRAPH
        if not 2 < max_length <= model.max_positions:
            raise ModelError(f"max_length is {max_length}: {self._graph} takes 3 to {model.max_positions} tokens")
        refuse_missing_device(device)
        try:
            graph = open_graph(self._graph, device, model.ranges)
            self._tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
        except ModelError:
            raise
        except Exception as error:
            # Neither library has a base class of its own for what it raises.
            raise ModelError(f"the model in {model.folder} cannot be loaded: {error}; export it again") from error
        self._session = graph.session
        if PROVIDERS[device] not in self._session.get_providers():
            raise ModelError(f"{device} does not answer: look at its driver, or set model.inference_device to cpu")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._inputs = [node.name for node in self._session.get_inputs()]
        if not set(self._inputs) <= set(INPUTS):
            raise ModelError(f"{self._graph} wants {', '.join(self._inputs)}; only {', '.join(INPUTS)} can be given")
        # What a graph without a mask would make of padding nobody knows.
        self._in_buckets = INPUTS[1] in self._inputs and not graph.neighbours_matter
        self._max_length = max_length
        self._threads = threads
        self._batch_size = batch_size
        self._cache = ScoreCache(cache_size)
        self._on_scored = on_scored
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sentiment")

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order: polarity p(pos) - p(neg), confidence 1 - p(neutral).

        Raises ModelError when the graph fails or its output is not three finite numbers.
        """
        keys = list(self._pool.map(self._token_ids, texts))
        distinct = list(dict.fromkeys(keys))
        scores = self._cache.known(distinct)
        new = [key for key in distinct if key not in scores]
        groups = self._groups(new)
        ran: dict[bytes, Sentiment] = {}
        for group, run in zip(groups, self._pool.map(self._run, groups), strict=True):
            ran.update(zip(group, run, strict=True))
        self._cache.remember(ran)
        self._on_scored(len(keys) - len(new), len(new))
        scores |= ran
        return [scores[key] for key in keys]

    def close(self) -> None:
        """Stop the threads, without waiting for them; the model cannot score after this."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _token_ids(self, text: str) -> bytes:
        # As a batch of one: encode() holds the GIL, encode_batch_fast() does not.
        [encoding] = self._tokenizer.encode_batch_fast([text])
        return np.array(encoding.ids, dtype=TOKEN_ID).tobytes()

    def _groups(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        if not self._in_buckets:
            return [[key] for key in keys]
        lengths = [len(key) // TOKEN_ID.itemsize for key in keys]
        # Every thread gets its share of texts that are all of one length.
        max_texts = min(self._batch_size, max(1, math.ceil(len(keys) / self._threads)))
        return [[keys[position] for position in bucket] for bucket in buckets(lengths, max_texts=max_texts)]

    def _run(self, group: Sequence[bytes]) -> list[Sentiment]:
        texts = [np.frombuffer(key, dtype=TOKEN_ID) for key in group]
        length = max(text.size for text in texts)
        if self._in_buckets:
            length = min(filled_length(length), self._max_length)
        ids = np.zeros((len(texts), length), dtype=TOKEN_ID)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : text.size] = text
            mask[row, : text.size] = 1
        values = dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
        try:
            logits = self._session.run(None, {name: values[name] for name in self._inputs})[0]
        except Exception as error:
            # ONNX Runtime has no base class of its own for what it raises.
            raise ModelError(f"{self._graph} failed on {mask.sum()} tokens: {error}", "inference") from error
        wanted = (len(texts), len(self._labels))
        if logits.shape != wanted:
            raise ModelError(f"{self._graph} answers with the shape {logits.shape}, not {wanted}", "shape")
        if not np.isfinite(logits).all():
            raise ModelError(f"{self._graph} answers {logits.tolist()}, not finite numbers", "non_finite")
        return [self._sentiment(row) for row in logits.astype(np.float64)]

    def _sentiment(self, logits: NDArray[np.float64]) -> Sentiment:
        powers = [math.exp(logit) for logit in (logits - logits.max()).tolist()]
        p = {label: power / math.fsum(powers) for label, power in zip(self._labels, powers, strict=True)}
        return Sentiment(p["positive"] - p["negative"], 1.0 - p["neutral"], max(p, key=p.__getitem__))
