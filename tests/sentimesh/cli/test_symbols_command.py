from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from sentimesh.cli.symbols import read_texts, symbols
from sentimesh.errors import SentimeshError


def test_the_command_prints_a_json_line_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    symbols(["gm", "btc > ETH"], None, "ETH,btc")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"text": "gm", "symbols": []}, {"text": "btc > ETH", "symbols": ["BTC", "ETH"]}]


def test_the_command_reads_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "solana"}\n\n{"text": "über $xmr", "other": 1}\n', "utf-8")
    symbols(None, path, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"text": "solana", "symbols": ["SOL"]}, {"text": "über $xmr", "symbols": ["XMR"]}]


@pytest.mark.parametrize("bad", ["{", '{"txt": "a"}', '"a"', '{"text": 1}'])
def test_a_bad_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n' + bad + "\n")
    with pytest.raises(SentimeshError, match=r"texts\.jsonl:2: "):
        read_texts(path)


def test_a_missing_file_and_wrong_usage_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SentimeshError, match=r"cannot read .*absent"):
        read_texts(tmp_path / "absent")
    with pytest.raises(typer.BadParameter):
        symbols(["a"], tmp_path / "absent", None)
    with pytest.raises(typer.BadParameter):
        symbols(None, None, None)
