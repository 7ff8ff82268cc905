from __future__ import annotations

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from scorer_svc.model_files import find_model
from scorer_svc.sentiment import ModelError

SHIPPED = Path(str(files("scorer_svc"))) / "models"


def model_folder(tmp_path: Path, config: object) -> Path:
    """A folder whose configuration is under test; its other files are not read, only hashed."""
    folder = tmp_path / "mymodel"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["sentimesh-base", "sentimesh-mini"])
def test_a_shipped_model_is_found_by_name_and_has_its_released_version(name: str) -> None:
    model = find_model(name)
    assert model.folder == SHIPPED / name
    assert model.version == f"{name}-2.1"
    assert model.labels == ("negative", "neutral", "positive")
    assert model.max_positions == 512


def test_the_same_files_elsewhere_are_the_same_version_and_changed_ones_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(SHIPPED / "sentimesh-mini", folder)
    assert find_model(str(folder)).version == "sentimesh-mini-2.1"
    (folder / "activation_ranges.json").rename(folder / "aside")
    # The model's second release had none.
    assert find_model(str(folder)).version == "sentimesh-mini-2"
    (folder / "aside").rename(folder / "activation_ranges.json")
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert re.fullmatch(r"copy-[0-9a-f]{8}", find_model(str(folder)).version)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["positive", "negative", "neutral"], ("positive", "negative", "neutral")),
        (["Neutral", "BULLISH", " Bearish"], ("neutral", "positive", "negative")),
        (["Bearish", "neutral", "Positive"], ("negative", "neutral", "positive")),
        (["POS", "neg", "NEU"], ("positive", "negative", "neutral")),
        (["bear", "Neut", "Bull"], ("negative", "neutral", "positive")),
    ],
)
def test_the_order_of_the_outputs_is_the_configurations(
    tmp_path: Path, names: list[str], labels: tuple[str, ...]
) -> None:
    config = {"id2label": {str(index): name for index, name in enumerate(names)}}
    assert find_model(str(model_folder(tmp_path, config))).labels == labels


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"id2label": None},
        {"id2label": {}},
        {"id2label": ["negative", "neutral", "positive"]},
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}},
        {"id2label": {"0": "negative", "1": "positive"}},
        {"id2label": {"0": "negative", "1": "bearish", "2": "positive"}},
        {"id2label": {"0": "negative", "1": "neutral", "2": "positive", "3": "neutral"}},
        {"id2label": {"0": "negative", "1": "neutral", "3": "positive"}},
        {"id2label": {"0": "negative", "1": 7, "2": "positive"}},
        {"id2label": {"0": "very negative", "1": "neutral", "2": "very positive"}},
        {"id2label": {"0": "negative", "1": "neutral", "2": "positive"}, "label2id": ["negative", "positive"]},
        [],
        "not json",
    ],
    ids=str,
)
def test_a_mapping_that_does_not_name_the_three_is_refused(tmp_path: Path, config: object) -> None:
    folder = model_folder(tmp_path, config)
    with pytest.raises(ModelError, match=r"id2label must say") as raised:
        find_model(str(folder))
    assert str(folder / "config.json") in str(raised.value)
    assert raised.value.error_type == "load"


def test_the_refusal_shows_the_labels_it_found(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}})
    with pytest.raises(ModelError, match=r"LABEL_0.*LABEL_1.*LABEL_2"):
        find_model(str(folder))


def test_a_label2id_of_another_order_makes_both_doubtful(tmp_path: Path) -> None:
    id2label = {"0": "negative", "1": "neutral", "2": "positive"}
    label2id = {"positive": 0, "negative": 1, "neutral": 2}
    folder = model_folder(tmp_path, {"id2label": id2label, "label2id": label2id})
    with pytest.raises(ModelError, match="label2id, which says another order"):
        find_model(str(folder))


@pytest.mark.parametrize(
    "label2id",
    [
        {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
        {"negative": 0, "neutral": 1, "positive": 2},
        {"negative": "0", "neutral": "1", "positive": "2"},
        None,
    ],
)
def test_a_label2id_that_agrees_or_says_nothing_is_no_matter(tmp_path: Path, label2id: object) -> None:
    id2label = {"0": "negative", "1": "neutral", "2": "positive"}
    folder = model_folder(tmp_path, {"id2label": id2label, "label2id": label2id})
    assert find_model(str(folder)).labels == ("negative", "neutral", "positive")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="sentimesh-base, sentimesh-mini, vader, or a folder"):
        find_model("finbert")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json;"):
        find_model(str(folder))
