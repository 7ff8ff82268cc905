"""``sentimesh models`` on a store of the test's own: what it prints, what it changes, how it refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import stamina
from typer.testing import CliRunner

from scorer_svc.model_files import find_model
from scorer_svc.service import ScorerStage
from sentimesh import build
from sentimesh.cli.app import app
from sentimesh.errors import SentimeshError
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost
from sentimesh.settings import load_settings
from sentimesh.stage import Delivery, Forward
from sentimesh.telemetry import Metrics
from tests.tiny_bert import make_tiny_bert


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)
    monkeypatch.setenv("SENTIMESH__MODEL__STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A stored model, and its version."""
    folder = make_tiny_bert(tmp_path / "mine", labels=("neutral", "Bearish", "Bullish"))
    run("pull", str(folder), "--name", "mine")
    return find_model("mine", tmp_path / "store").version


def run(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refusal(*arguments: str) -> str:
    """Return the error that the entry point prints as one line, with exit code 1."""
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, SentimeshError), result.exception
    return str(result.exception)


def scoring() -> str:
    """Return the version of the model that a scorer started now scores with."""
    return asyncio.run(scored_by(build.scorer(load_settings(None), Metrics())))


async def scored_by(stage: ScorerStage) -> str:
    """Return the version of the model that scores the next post."""
    post = FilteredPost(post=SocialPost(post_id="twitter:1", symbol="BTC", text="bitcoin"), credibility_score=0.5)
    [[outcome]] = await stage.process([Delivery(post, 1)])
    assert isinstance(outcome, Forward)
    assert isinstance(outcome.message, ScoredPost)
    return outcome.message.model_version


def test_without_a_store_the_shipped_models_are_listed(store: Path) -> None:
    lines = run("list")
    assert [line.split()[:2] for line in lines[:2]] == [
        ["*", "sentimesh-base"],
        ["sentimesh-mini", "sentimesh-mini-2.1"],
    ]
    assert lines[2:] == [f"model.primary is auto, fallback vader; {store}"]
    assert not store.exists()


def test_what_is_pulled_is_listed_and_scores_once_it_is_chosen(mine: str, tmp_path: Path) -> None:
    assert scoring() == "sentimesh-base-2.1"
    assert run("use", "mine") == [f"{mine} scores from the next start on"]
    assert scoring() == mine
    [listed, *others] = [json.loads(line) for line in run("list", "--json")]
    assert listed["name"] == "mine"
    assert listed["labels"] == ["neutral", "negative", "positive"]
    assert listed["source"] == str(tmp_path / "mine")
    assert listed["primary"]
    assert [other["primary"] for other in others] == [False, False]
    [line] = [line for line in run("list") if line.startswith("*")]
    assert line.split()[1:3] == ["mine", mine]


def test_the_one_in_use_is_not_removed_and_another_one_is(mine: str, store: Path) -> None:
    run("use", "mine")
    assert refusal("remove", "mine") == "mine is in use: `sentimesh models use` another one first"
    run("use", "sentimesh-mini")
    assert run("remove", "mine") == ["mine removed"]
    assert not (store / "mine").exists()
    assert scoring() == "sentimesh-mini-2.1"
    assert refusal("remove", "mine").startswith("there is no model mine: there are sentimesh-base")


@pytest.mark.parametrize("key", ["FALLBACK", "SHADOW_MODEL"])
def test_a_fallback_and_a_shadow_are_in_use_too(mine: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SENTIMESH__MODEL__{key}", "mine")
    assert refusal("remove", "mine").startswith("mine is in use")


def test_a_name_in_the_configuration_wins_and_use_says_so(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIMESH__MODEL__PRIMARY", "sentimesh-mini")
    assert refusal("use", "mine").startswith("model.primary is set to sentimesh-mini (defaults and environment)")
    assert scoring() == "sentimesh-mini-2.1"
    monkeypatch.setenv("SENTIMESH__MODEL__PRIMARY", "mine")
    assert scoring() == mine


def test_verify_goes_through_all_and_names_what_is_wrong(mine: str, store: Path) -> None:
    assert run("verify") == [
        f"mine: ok, {mine}",
        "sentimesh-base: ok, sentimesh-base-2.1",
        "sentimesh-mini: ok, sentimesh-mini-2.1",
    ]
    with (store / "mine" / "tokenizer.json").open("a") as file:
        file.write(" ")
    result = CliRunner().invoke(app, ["models", "verify", "mine", "vader"])
    assert result.exit_code == 1
    assert "tokenizer.json in " in result.stdout
    assert "vader: ok, vader-" in result.stdout
    assert str(result.exception) == "not as it should be: mine"


def test_a_chosen_model_that_broke_is_stood_in_for(mine: str, store: Path) -> None:
    run("use", "mine")
    (store / "mine" / "model.onnx").write_bytes(b"")
    assert scoring() == "sentimesh-base-2.1"
    (store / "current").write_bytes(b"\xff")
    assert scoring() == "sentimesh-base-2.1"
    assert refusal("list").endswith("remove it")


def test_a_broken_manifest_is_shown_in_the_list(mine: str, store: Path) -> None:
    (store / "mine" / "manifest.json").write_text("{")
    [line] = [line for line in run("list") if " mine " in line]
    assert "unusable" in line
    assert "pull the model again" in line


def test_a_source_that_is_not_there_or_has_no_name_is_refused(tmp_path: Path) -> None:
    assert refusal("pull", "nowhere").startswith("there is no nowhere: give finbert, or a folder")
    folder = make_tiny_bert(tmp_path / "mine")
    assert refusal("pull", str(folder)) == f"the model of {folder} has no name yet: give one with --name"


def test_a_stored_model_can_be_asked_by_score(mine: str) -> None:
    result = CliRunner().invoke(app, ["score", "--model", "mine", "bitcoin"])
    assert json.loads(result.stdout)["model_version"] == mine


async def test_a_finbert_exported_elsewhere_scores_once_its_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = tmp_path / "finbert-onnx"
    monkeypatch.setenv("SENTIMESH__MODEL__PRIMARY", "finbert")
    monkeypatch.setenv("SENTIMESH__MODEL__MODEL_PATH", str(exported))
    stage = build.scorer(load_settings(None), Metrics())
    assert await scored_by(stage) == "sentimesh-base-2.1"
    make_tiny_bert(tmp_path / "written").rename(exported)
    version = find_model(str(exported)).version
    async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=None, wait_max=0.3):
        with attempt:
            assert await scored_by(stage) == version
    await stage.close()
    assert version.startswith("finbert-onnx-")
    [line] = [line for line in run("list") if line.startswith("*")]
    assert line.split()[1:3] == ["finbert", version]
    assert line.endswith(str(exported))
    assert run("verify", "finbert") == [f"finbert: ok, {version}"]
    result = CliRunner().invoke(app, ["score", "--model", "finbert", "bitcoin"])
    assert json.loads(result.stdout)["model_version"] == version
