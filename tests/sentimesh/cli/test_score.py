from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from scorer_svc.model_store import load_model
from scorer_svc.sentiment import ModelError
from sentimesh.cli.score import CHUNK, TextInputError, score


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    app = typer.Typer()
    app.command()(score)
    return CliRunner().invoke(app, list(arguments), input=stdin)


def output(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_text_is_a_line_in_order() -> None:
    lines = output(run("$BTC to the moon 🚀", "", "all is lost, sell", "--model", "sentimesh-mini"))
    assert [line["text"] for line in lines] == ["$BTC to the moon 🚀", "", "all is lost, sell"]
    assert [line["label"] for line in lines] == ["positive", "neutral", "negative"]
    assert {line["model_version"] for line in lines} == {"sentimesh-mini-2.1"}
    assert set(lines[0]) == {"text", "polarity", "confidence", "label", "model_version"}
    [expected] = load_model("sentimesh-mini").score(["all is lost, sell"])
    assert (lines[2]["polarity"], lines[2]["confidence"]) == (expected.polarity, expected.confidence)


def test_the_default_model_is_base() -> None:
    [line] = output(run("gm"))
    assert line["model_version"] == "sentimesh-base-2.1"


def test_a_file_longer_than_a_chunk_keeps_its_order(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2 * CHUNK + 1)]
    file = tmp_path / "texts.jsonl"
    file.write_text("\n\n".join(json.dumps({"text": text, "label": "x"}) for text in texts))
    assert [line["text"] for line in output(run("--jsonl", str(file), "--model", "vader"))] == texts


def test_standard_input_is_a_file_named_dash() -> None:
    lines = output(run("--jsonl", "-", "--model", "vader", stdin=b'{"text": "good"}\n'))
    assert [(line["text"], line["label"]) for line in lines] == [("good", "positive")]


def test_a_model_is_a_folder_too() -> None:
    folder = Path(__file__).parents[3] / "scorer_svc" / "models" / "sentimesh-mini"
    assert [line["model_version"] for line in output(run("gm", "--model", str(folder)))] == ["sentimesh-mini-2.1"]


@pytest.mark.parametrize(
    "bad",
    [b"{", b"[]", b'"text"', b"{}", b'{"text": 7}', b'{"text": null}', b'{"text": "\xff"}', b'{"text": "\\ud800"}'],
)
def test_a_bad_line_is_named_after_the_chunks_before_it(tmp_path: Path, bad: bytes) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_bytes(b'{"text": "gm"}\n' * CHUNK + bad + b"\n")
    result = run("--jsonl", str(file), "--model", "vader")
    assert isinstance(result.exception, TextInputError)
    assert str(result.exception).startswith(f"{file}:{CHUNK + 1} is not a JSON object")
    assert len(result.stdout.splitlines()) == CHUNK


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("--jsonl", str(tmp_path / "none.jsonl"), "--model", "vader")
    assert isinstance(result.exception, TextInputError)
    assert "none.jsonl cannot be read (No such file or directory)" in str(result.exception)


def test_an_argument_that_is_no_text_is_named() -> None:
    result = run("gm", "\udcff", "--model", "vader")
    assert isinstance(result.exception, TextInputError)
    assert "text 2 is not UTF-8" in str(result.exception)


def test_an_unknown_model_is_an_error() -> None:
    result = run("gm", "--model", "none")
    assert isinstance(result.exception, ModelError)


@pytest.mark.parametrize("arguments", [[], ["gm", "--jsonl", "x.jsonl"]])
def test_neither_or_both_kinds_of_input_is_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
