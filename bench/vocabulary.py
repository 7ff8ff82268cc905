"""What the crypto vocabulary changes for a plain BERT model, and for the shipped ones without their own tokens.

    python bench/vocabulary.py [--threads 2] [--examples 20]

Tokens: the recordings in ../shared/data/posts through the word pieces of BERT base uncased (the shipped tokenizer's
30,522 without its added tokens and its clean-up, links and mentions left out), before and after the extension. UNK is
the share of tokens that are unknown; pieces a word are tokens by the words between spaces. The examples are invented.

Accuracy: both shipped models on crypto-posts-graded as shipped, without the tokens they were trained with, and then
with the vocabulary's in their place: the emoji, words too, all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
from tokenizers import BertWordPieceTokenizer, Tokenizer

from bench.accuracy import DATA as LABELLED
from bench.accuracy import labelled, measure
from ingest_svc.normalize import normalize
from ingest_svc.text import own_words
from scorer_svc.model_files import TOKENIZER, files_of, find_model
from scorer_svc.onnx_model import OnnxModel
from scorer_svc.vocabulary import Entry, Group, load_vocabulary
from scorer_svc.vocabulary_tokens import added_tokens, extend_model
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

POSTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "posts"
RECORDINGS = {
    "X, 2019": "twitter-btc-2019-10-15_19.jsonl.gz",
    "Reddit, 2025": "reddit-2025-10.jsonl.gz",
    "Telegram, 2024": "telegram-pump-channels-2024.jsonl.gz",
    "Discord, 2025": "discord-ethglobal-2025.jsonl.gz",
}
MODELS = ("sentimesh-base", "sentimesh-mini")
# What of the vocabulary a model gets.
ADDED: dict[str, tuple[Group, ...]] = {
    "emoji": ("emoji",),
    "emoji, words": ("emoji", "words"),
    "the vocabulary": ("emoji", "words", "tickers"),
}
BERT_TOKENS = 30_522
BATCH = 1024
# The shipped models' clean-up writes it for every cashtag.
CASHTAG = "[TICKER]"
EXAMPLES = (
    "HODL, frens, wagmi 🚀🚀🚀",
    "got rekt on leveraged longs, liquidated at the bottom 💀",
    "another rugpull, the devs dumped everything 📉",
    "solana memecoins are pumping, ngmi if you sell now",
    "BTFD while paperhands capitulate",
    "shitcoin season again 🤡",
    "binance delisting fud, ignore it 💎🙌",
    "uptober started: btc parabolic 📈📈",
    "the stablecoin depegged and the exchange is insolvent",
    "usdt inflows to kraken, altseason soon",
    "shorting eth here, rsi overbought 🐻",
    "hopium and copium, the bloodbath goes on 🩸",
    "dyor, nfa, but this gem is undervalued",
    "etf outflows, nasdaq tanking, crypto follows 🔻",
    "scammers drained my metamask wallet 😭",
    "wen lambo? 🤑",
    "bagholders waiting for a new ath since 2017",
    "hashrate at a new high after the halving ⚡",
    "permabulls got nuked by a fakeout",
    "stacking sats, dca every week 💪",
)


def recorded_raw_posts(path: Path) -> Iterator[RawPost]:
    """Yield the posts of a recording as their platform gave them."""
    with gzip.open(path) as file:
        for line in file:
            record = orjson.loads(line)
            payload = orjson.dumps(record["payload"])
            yield RawPost(platform=record["platform"], payload=payload, received_at_ms=record["received_at_ms"])


def recorded_posts(path: Path) -> Iterator[SocialPost]:
    """Yield the posts of a recording, normalised; they have no symbol yet."""
    return (normalize(raw, raw.received_at_ms)[0] for raw in recorded_raw_posts(path))


def texts(path: Path) -> Iterator[str]:
    """Yield what the posts of a recording say, as the scorer gets it, without links and mentions."""
    return (own_words(post.text) for post in recorded_posts(path))


def bert_base(vocabulary: dict[str, int]) -> Tokenizer:
    """Return the tokenizer of BERT base uncased."""
    words = {word: index for word, index in vocabulary.items() if index < BERT_TOKENS}
    plain = Tokenizer.from_str(BertWordPieceTokenizer(words).to_str())
    plain.no_truncation()
    return plain


def with_tokens(tokenizer: Tokenizer, entries: Sequence[Entry]) -> Tokenizer:
    """Return a copy that has the entries as tokens, as :func:`extend_model` adds them."""
    extended = Tokenizer.from_str(tokenizer.to_str())
    extended.add_tokens(added_tokens(extended, entries))
    return extended


def row(name: str, found: Sequence[str], plain: Tokenizer, extended: Tokenizer) -> str:
    """Return a line of the table for one recording."""
    words = sum(len(text.split()) for text in found)
    shown = []
    for tokenizer in (plain, extended):
        tokens = unknown = posts = 0
        for first in range(0, len(found), BATCH):
            for encoding in tokenizer.encode_batch(found[first : first + BATCH], add_special_tokens=False):
                count = encoding.tokens.count("[UNK]")
                tokens, unknown, posts = tokens + len(encoding), unknown + count, posts + bool(count)
        shown += [f"{unknown / tokens:>8.2%}", f"{posts / len(found):>8.2%}", f"{tokens / words:>8.3f}"]
    # Before and after of each of the three, side by side.
    pairs = zip(shown[:3], shown[3:], strict=True)
    return f"{name:<16}{len(found):>7}" + "".join(before + after for before, after in pairs)


def without_own_tokens(source: Path, target: Path) -> None:
    """Write a shipped model that knows none of its added words and emoji; its rows for them are out of reach."""
    content = json.loads((source / TOKENIZER).read_bytes())
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["id"] < BERT_TOKENS or token["content"] == CASHTAG
    ]
    target.mkdir()
    (target / TOKENIZER).write_text(json.dumps(content), "utf-8")
    for name in files_of(source):
        if name != TOKENIZER:
            shutil.copy(source / name, target / name)


def compare_tokens(entries: Sequence[Entry], examples: int) -> None:
    """Print the table of the recordings and the examples."""
    shipped = Tokenizer.from_file(str(find_model(MODELS[0]).folder / TOKENIZER))
    plain = bert_base(shipped.get_vocab())
    extended = with_tokens(plain, entries)
    added = extended.get_vocab_size() - plain.get_vocab_size()
    print(f"{len(entries)} entries, {added} of them tokens that BERT base uncased does not have")
    print(f"{'':<23}{'UNK of tokens':>16}{'posts with UNK':>16}{'pieces a word':>16}")
    print(f"{'recording':<16}{'posts':>7}" + f"{'before':>8}{'after':>8}" * 3)
    for name, file in RECORDINGS.items():
        if (POSTS / file).is_file():
            print(row(name, list(texts(POSTS / file)), plain, extended), flush=True)
        else:
            print(f"{name}: ../shared/data/posts/{file} is not here: left out")
    for text in EXAMPLES[:examples]:
        print(f"\n{text}")
        for tokenizer in (plain, extended):
            print("   ", " ".join(tokenizer.encode(text, add_special_tokens=False).tokens))


def compare_scores(entries: Sequence[Entry], threads: int) -> None:
    """Print what the shipped models are worth with their own tokens, with none, and with the vocabulary's."""
    path = LABELLED / "crypto-posts-graded.jsonl"
    if not path.is_file():
        print("\n../shared/data/sentiment/crypto-posts-graded.jsonl is not here: left out")
        return
    rows = labelled(path)
    print(f"\n{'crypto-posts-graded':<22}{'tokens':<18}{'accuracy':>9}{'macro-F1':>9}{'AUC':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            shipped, stripped = find_model(name).folder, Path(folder, name)
            without_own_tokens(shipped, stripped)
            found = {"its own": shipped, "none": stripped}
            for tokens, groups in ADDED.items():
                found[tokens] = Path(folder, f"{name}, {tokens}")
                extend_model(stripped, found[tokens], [entry for entry in entries if entry.group in groups])
            for tokens, model in found.items():
                scorer = OnnxModel(find_model(str(model)), threads=threads)
                accuracy, f1, auc = measure(scorer, rows)[0]
                scorer.close()
                print(f"{name:<22}{tokens:<18}{accuracy:>9.3f}{f1:>9.3f}{auc:>7.3f}", flush=True)


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="texts scored at once")
    parser.add_argument("--examples", type=int, default=len(EXAMPLES), help="how many to show")
    arguments = parser.parse_args()
    entries = load_vocabulary()
    compare_tokens(entries, arguments.examples)
    compare_scores(entries, arguments.threads)


if __name__ == "__main__":
    main()
