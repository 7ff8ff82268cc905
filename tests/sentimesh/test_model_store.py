"""The model store against a hub over HTTP: what is stored, and that a failure leaves what was there as it was."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import stamina
from tokenizers import Tokenizer

from scorer_svc.manifest import read_manifest
from scorer_svc.model_files import FILES, find_model
from scorer_svc.model_store import load_model
from scorer_svc.sentiment import ModelError
from sentimesh.model_store import ModelStore, ModelStoreError
from sentimesh.model_store.pull import Making, pull_finbert, pull_local
from sentimesh.settings import Finbert
from tests.hub import REPOSITORY, REVISION, Hub
from tests.tiny_bert import POSITIONS, make_tiny_bert

TEXTS = ["bitcoin to the moon", "it is over sell", "bitcoin bitcoin bitcoin", ""]
SENTIMESH = Path(sys.executable).with_name("sentimesh")
OPTIONS = Finbert(repository=REPOSITORY, revision=REVISION)
# Larger than the pieces of 10 MiB in which huggingface_hub writes.
PIECE = 10 * 1024 * 1024
ROWS, HIDDEN = 24_000, 256


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(make_tiny_bert(tmp_path / "published", graph="onnx/model.onnx")) as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def stored(store: ModelStore, tmp_path: Path) -> ModelStore:
    """With an earlier finbert in it, which no failure may harm."""
    pull_local(store, make_tiny_bert(tmp_path / "earlier", seed=9), "finbert")
    store.use("finbert")
    return store


def publish_large(hub: Hub) -> None:
    make_tiny_bert(hub.folder, graph="onnx/model.onnx", rows=ROWS, hidden=HIDDEN)


def polarities(folder: str, store: ModelStore) -> list[float]:
    return [sentiment.polarity for sentiment in load_model(folder, store=store.folder, cache_size=0).score(TEXTS)]


def pull(store: ModelStore, hub: Hub, options: Finbert = OPTIONS) -> None:
    pull_finbert(store, options, endpoint=hub.endpoint)


def left(store: ModelStore) -> set[str]:
    """What is in the store besides the models themselves."""
    return {str(path.relative_to(store.folder)) for path in store.folder.glob(".downloads/*/*/*")}


def test_what_is_pulled_is_int8_has_a_manifest_and_scores_like_what_was_published(hub: Hub, store: ModelStore) -> None:
    pull_finbert(store, OPTIONS, Making(vocabulary=False), endpoint=hub.endpoint)
    model = find_model("finbert", store.folder)
    manifest = read_manifest(model.folder)
    assert manifest is not None
    assert manifest.model_dump() == {
        "name": "finbert",
        "version": model.version,
        "source": f"{hub.endpoint.removeprefix('http://')}/{REPOSITORY}",
        "revision": REVISION,
        "files": {name: hashlib.sha256((model.folder / name).read_bytes()).hexdigest() for name in FILES},
        "labels": ("positive", "negative", "neutral"),
        "max_length": POSITIONS,
        "licence": "mit",
        "vocabulary": 0,
        "quantization": "int8 per channel",
    }
    assert model.version.startswith("finbert-")
    assert (model.folder / "model.onnx").stat().st_size < len(hub.content("onnx/model.onnx")) * 0.7
    as_it_came = Making(vocabulary=False, int8=False)
    pull_finbert(store, OPTIONS, as_it_came, name="as-it-came", endpoint=hub.endpoint)
    assert (store.folder / "as-it-came" / "model.onnx").read_bytes() == hub.content("onnx/model.onnx")
    exact = polarities("as-it-came", store)
    assert max(exact) - min(exact) > 0.2
    assert polarities("finbert", store) == pytest.approx(exact, abs=0.03)
    assert left(store) == set()


def test_finbert_gets_the_crypto_vocabulary(hub: Hub, store: ModelStore) -> None:
    pull(store, hub)
    pull_finbert(store, OPTIONS, Making(vocabulary=False), name="without", endpoint=hub.endpoint)
    manifests = [read_manifest(store.folder / name) for name in ("finbert", "without")]
    tokenizers = [Tokenizer.from_file(str(store.folder / name / "tokenizer.json")) for name in ("finbert", "without")]
    assert manifests[0] is not None
    assert manifests[0].vocabulary > 100
    assert tokenizers[0].get_vocab_size() == tokenizers[1].get_vocab_size() + manifests[0].vocabulary
    assert "hodl" in tokenizers[0].encode("hodl").tokens
    assert "hodl" not in tokenizers[1].encode("hodl").tokens
    assert {path.name for path in (store.folder / "finbert").iterdir()} == {*FILES, "manifest.json"}


def test_the_labels_are_in_the_order_of_the_configuration(store: ModelStore, tmp_path: Path) -> None:
    for name, labels in (("a", ("positive", "negative", "neutral")), ("b", ("Bearish", "Bullish", "NEU"))):
        pull_local(store, make_tiny_bert(tmp_path / name, labels=labels), name)
    assert polarities("b", store) == pytest.approx([-polarity for polarity in polarities("a", store)])


def test_a_model_with_other_labels_is_refused_before_the_graph_is_fetched(hub: Hub, stored: ModelStore) -> None:
    make_tiny_bert(hub.folder, labels=("LABEL_0", "LABEL_1", "LABEL_2"), graph="onnx/model.onnx")
    before = polarities("finbert", stored)
    with pytest.raises(ModelError, match=r"id2label is .*LABEL_0"):
        pull(stored, hub)
    assert polarities("finbert", stored) == before
    assert hub.ranges() == []


def test_another_pull_replaces_the_model_and_a_loaded_one_goes_on(hub: Hub, stored: ModelStore) -> None:
    running = load_model("finbert", store=stored.folder, cache_size=0)
    before = running.score(TEXTS)
    pull(stored, hub)
    assert running.score(TEXTS) == before
    renewed = load_model("finbert", store=stored.folder, cache_size=0)
    assert renewed.model_version != running.model_version
    assert renewed.score(TEXTS) != before
    assert len(list(stored.folder.glob(".versions/*"))) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, store: ModelStore) -> None:
    publish_large(hub)
    hub.cuts = [PIECE + 1000]
    pull(store, hub)
    assert hub.ranges() == [None, f"bytes={PIECE}-"]
    store.verify("finbert")


def test_a_hub_that_stays_away_is_named_and_the_next_pull_goes_on(hub: Hub, stored: ModelStore) -> None:
    publish_large(hub)
    before = polarities("finbert", stored)
    hub.cuts = [PIECE + 1000] + [0] * 20
    with pytest.raises(ModelStoreError, match=r"cannot be reached for onnx/model.onnx .*goes on where it stopped"):
        pull(stored, hub)
    assert polarities("finbert", stored) == before
    assert left(stored) == {
        f".downloads/finbert/{REVISION}/{name}" for name in ("config.json", "tokenizer.json", "model.onnx.part")
    }
    asked = len(hub.ranges())
    hub.cuts.clear()
    pull(stored, hub)
    assert hub.ranges()[asked:] == [f"bytes={PIECE}-"]
    assert polarities("finbert", stored) != before
    assert left(stored) == set()


def test_a_killed_pull_leaves_no_half_model_and_the_next_goes_on(hub: Hub, stored: ModelStore, tmp_path: Path) -> None:
    publish_large(hub)
    before = polarities("finbert", stored)
    hub.cuts, hub.stall = [PIECE + 1000], True
    process = subprocess.Popen([SENTIMESH, "models", "pull", "finbert"], env=environment(hub, stored))
    part = stored.folder / ".downloads" / "finbert" / REVISION / "model.onnx.part"
    assert hub.stalled.wait(60)
    for attempt in stamina.retry_context(on=(AssertionError, OSError), attempts=None, timeout=60, wait_max=0.1):
        with attempt:
            assert part.stat().st_size == PIECE
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert polarities("finbert", stored) == before
    pull(stored, hub)
    assert hub.ranges() == [None, f"bytes={PIECE}-"]
    assert polarities("finbert", stored) != before


def test_what_a_killed_pull_left_in_the_store_is_no_model_and_swept_away(hub: Hub, stored: ModelStore) -> None:
    half = stored.folder / ".versions" / "finbert-00000000"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    (stored.folder / ".finbert-00000000").symlink_to(".versions/finbert-00000000")
    assert stored.names() == ["finbert"]
    stored.verify("finbert")
    pull(stored, hub)
    assert not half.exists()
    assert {path.name for path in stored.folder.iterdir()} == {".versions", ".downloads", ".lock", "current", "finbert"}


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json", "tokenizer.json"])
def test_a_wrong_checksum_is_refused_and_the_file_not_kept(hub: Hub, stored: ModelStore, file: str) -> None:
    before = polarities("finbert", stored)
    content = bytearray(hub.content(file))
    content[len(content) // 2] ^= 1
    hub.swapped[file] = bytes(content)
    with pytest.raises(ModelStoreError, match=rf"^{file} of .* arrived with another checksum"):
        pull(stored, hub)
    assert polarities("finbert", stored) == before
    assert not any(Path(file).name in name for name in left(stored))
    hub.swapped.clear()
    pull(stored, hub)
    assert polarities("finbert", stored) != before


def test_a_rest_that_does_not_fit_the_beginning_is_found(hub: Hub, store: ModelStore) -> None:
    part = store.downloads("finbert", REVISION) / "model.onnx.part"
    part.write_bytes(b"x" * 5000)
    with pytest.raises(ModelStoreError, match="another checksum"):
        pull(store, hub)
    pull(store, hub)
    assert hub.ranges() == ["bytes=5000-", None]


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(hub: Hub, stored: ModelStore, file: str) -> None:
    before = polarities("finbert", stored)
    (hub.folder / file).unlink()
    with pytest.raises(ModelStoreError, match=rf"has no file {file} at {REVISION}"):
        pull(stored, hub)
    assert polarities("finbert", stored) == before


def test_an_unknown_revision_and_repository_are_named(hub: Hub, stored: ModelStore) -> None:
    before = polarities("finbert", stored)
    with pytest.raises(ModelStoreError, match=r"has no revision f{40}: correct model\.finbert\.revision"):
        pull(stored, hub, OPTIONS.model_copy(update={"revision": "f" * 40}))
    with pytest.raises(ModelStoreError, match=r"there is no .*/someone/else, or HF_TOKEN does not open it"):
        pull(stored, hub, OPTIONS.model_copy(update={"repository": "someone/else"}))
    assert polarities("finbert", stored) == before


class NotAHub(BaseHTTPRequestHandler):
    """A portal that answers everything with a page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Log in</html>")


def test_a_hub_that_is_away_or_none_is_named(hub: Hub, stored: ModelStore, tmp_path: Path) -> None:
    before = polarities("finbert", stored)
    with Hub(tmp_path) as gone:
        pass
    with pytest.raises(
        ModelStoreError, match=r"^127\.0\.0\.1:\d+ cannot be reached .*\(ConnectError\): look at HF_ENDPOINT"
    ):
        pull_finbert(stored, OPTIONS, endpoint=f"http://name:secret@{gone.endpoint.removeprefix('http://')}")
    with HTTPServer(("127.0.0.1", 0), NotAHub) as other:
        answering = threading.Thread(target=other.handle_request)
        answering.start()
        with pytest.raises(ModelStoreError, match=r"does not answer like a hub \(JSONDecodeError\)"):
            pull_finbert(stored, OPTIONS, endpoint=f"http://127.0.0.1:{other.server_port}")
        answering.join()
    hub.broken = True
    with pytest.raises(ModelStoreError, match=r"answers 503 for onnx/model\.onnx"):
        pull(stored, hub)
    assert polarities("finbert", stored) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("filled", [10, 0], ids=["no room to fetch", "no room to quantise"])
def test_a_full_disk_is_named_and_the_stored_model_stays(
    hub: Hub, small_disk: Path, tmp_path: Path, filled: int
) -> None:
    publish_large(hub)
    store = ModelStore(small_disk / "store")
    pull_local(store, make_tiny_bert(tmp_path / "earlier", seed=9), "finbert")
    before = polarities("finbert", store)
    fill = small_disk / "fill"
    fill.write_bytes(bytes(filled << 20))
    with pytest.raises(ModelStoreError, match=r"there is no room left in .*make room"):
        pull(store, hub)
    assert polarities("finbert", store) == before
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    pull(store, hub)
    assert polarities("finbert", store) != before


def test_a_write_that_fails_midway_is_named_and_what_was_fetched_is_kept(hub: Hub, stored: ModelStore) -> None:
    """A limit on the size of files stands in for a disk that fills up while the file arrives."""
    publish_large(hub)
    before = polarities("finbert", stored)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 1000, limits[1]))
    try:
        with pytest.raises(ModelStoreError, match="there is no room left"):
            pull(stored, hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert polarities("finbert", stored) == before
    pull(stored, hub)
    assert hub.ranges()[1] is not None
    assert polarities("finbert", stored) != before


def environment(hub: Hub, store: ModelStore, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SENTIMESH", "HF_"))}
    return (
        kept
        | more
        | {
            "HF_ENDPOINT": hub.endpoint,
            "SENTIMESH__MODEL__STORE": str(store.folder),
            "SENTIMESH__MODEL__FINBERT__REPOSITORY": REPOSITORY,
            "SENTIMESH__MODEL__FINBERT__REVISION": REVISION,
        }
    )


def command(hub: Hub, store: ModelStore, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SENTIMESH, *arguments],
        env=environment(hub, store, **more),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_honours_hf_endpoint_and_shows_no_token(hub: Hub, store: ModelStore, tmp_path: Path) -> None:
    token = "hf_notforanybodyseyes"  # noqa: S105
    home = {"HF_HOME": str(tmp_path), "HF_TOKEN": token}
    done = command(hub, store, "models", "pull", "finbert", **home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "`sentimesh models use finbert` makes it score"
    asked = {
        server: {r.headers.get("authorization") for r in hub.requests if r.server == server}
        for server in ("hub", "storage")
    }
    assert asked == {"hub": {f"Bearer {token}"}, "storage": {None}}
    hub.broken = True
    for arguments, extra in (
        (("models", "pull", "finbert", "--name", "other"), {}),
        (("--debug", "models", "pull", "finbert", "--name", "other"), {}),
        (("models", "pull", "finbert"), {"HF_TOKEN": f"{token}\x01\u20ac"}),
        (("--debug", "models", "pull", "finbert"), {"HF_TOKEN": f"{token}\x01\u20ac"}),
        (("models", "pull", "finbert"), {"SENTIMESH__MODEL__FINBERT__REVISION": "f" * 40}),
    ):
        failed = command(hub, store, *arguments, **home | extra)
        assert failed.returncode == 1
        assert token not in failed.stdout + failed.stderr
        if "--debug" not in arguments:
            assert failed.stderr.startswith("error: ")
            assert failed.stderr.count("\n") == 1
    assert token not in "".join(path.read_text("latin-1") for path in store.folder.rglob("*.json"))


def test_another_process_that_changes_the_store_is_waited_for_by_the_user(hub: Hub, stored: ModelStore) -> None:
    with stored.locked(), pytest.raises(ModelStoreError, match="another process is changing"):
        pull(ModelStore(stored.folder), hub)


def test_a_file_is_taken_with_its_neighbours_and_the_original_only_read(store: ModelStore, tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "mine", graph="mine.onnx")
    listing = sorted(path.name for path in folder.iterdir())
    manifest = pull_local(store, folder / "mine.onnx", "mine")
    assert manifest.source == str(folder / "mine.onnx")
    assert (manifest.revision, manifest.licence) == (None, "not stated")
    assert sorted(path.name for path in folder.iterdir()) == listing
    assert left(store) == set()
    store.verify("mine")


def test_an_int8_model_is_taken_as_it_is(store: ModelStore) -> None:
    shipped = find_model("sentimesh-mini")
    manifest = pull_local(store, shipped.folder, "copy")
    assert manifest.quantization == "int8, as it came"
    assert manifest.version == "sentimesh-mini-2.1"
    for name in ("model.onnx", "activation_ranges.json"):
        assert (store.folder / "copy" / name).read_bytes() == (shipped.folder / name).read_bytes()
    (store.folder / "copy" / "activation_ranges.json").unlink()
    with pytest.raises(ModelError, match=r"activation_ranges\.json in .* is not what its manifest says"):
        load_model("copy", store=store.folder)


def test_ranges_that_were_added_to_a_stored_model_are_not_its_own(stored: ModelStore) -> None:
    (stored.folder / "finbert" / "activation_ranges.json").write_text("{}")
    with pytest.raises(ModelError, match=r"activation_ranges\.json in .* is not what its manifest says"):
        load_model("finbert", store=stored.folder)


def test_ranges_of_another_graph_are_refused_before_the_model_is_stored(store: ModelStore, tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "mine")
    (folder / "activation_ranges.json").write_text('{"x": [0, 1]}')
    with pytest.raises(ModelError, match="is for another graph"):
        pull_local(store, folder, "mine")
    assert left(store) == set()


def test_a_local_folder_that_is_no_model_is_refused(stored: ModelStore, tmp_path: Path) -> None:
    before = polarities("finbert", stored)
    folder = make_tiny_bert(tmp_path / "mine")
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelStoreError, match=r"model\.onnx is no ONNX graph"):
        pull_local(stored, folder, "finbert")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelStoreError, match=r"has no tokenizer\.json"):
        pull_local(stored, folder, "finbert")
    make_tiny_bert(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        pull_local(stored, folder, "finbert")
    assert polarities("finbert", stored) == before


@pytest.mark.parametrize(
    "name", ["vader", "auto", "current", "sentimesh-base", "", ".hidden", "../up", "a/b", "Finbert", "x" * 65]
)
def test_names_that_mean_something_else_are_refused(store: ModelStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelStoreError, match=r"cannot be called|is no name"):
        pull_local(store, make_tiny_bert(tmp_path / "mine"), name)
    assert not store.folder.exists()


def test_what_was_changed_or_cut_off_in_the_store_does_not_load(stored: ModelStore) -> None:
    folder = (stored.folder / "finbert").resolve()
    for name in FILES:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(ModelError, match="model"):
            find_model("finbert", stored.folder)
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "negative", "1": "positive", "2": "neutral"}
    del config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json in .* is not what its manifest says"):
        load_model("finbert", store=stored.folder)
    (folder / "manifest.json").write_text('{"name": "finbert"}')
    with pytest.raises(ModelError, match=r"is no manifest \(version: Field required\): pull the model again"):
        stored.verify("finbert")


def test_what_use_chose_is_what_auto_means_and_cannot_be_removed(stored: ModelStore) -> None:
    assert stored.primary("auto") == "finbert"
    assert stored.primary("sentimesh-mini") == "sentimesh-mini"
    with pytest.raises(ModelStoreError, match="finbert is in use"):
        stored.remove("finbert", {"finbert", "vader"})
    stored.use("vader")
    assert stored.primary("auto") == "vader"
    stored.remove("finbert", {"vader"})
    assert stored.names() == []
    assert list(stored.folder.glob(".versions/*")) == []
    for name in ("sentimesh-base", "vader"):
        with pytest.raises(ModelStoreError, match="comes with the program"):
            stored.remove(name, set())


def test_what_does_not_load_is_not_chosen(stored: ModelStore) -> None:
    (stored.folder / "finbert" / "model.onnx").write_bytes(b"")
    stored.use("sentimesh-mini")
    with pytest.raises(ModelError, match="is not what its manifest says"):
        stored.use("finbert")
    with pytest.raises(ModelStoreError, match="there is no model nothing: there are finbert, sentimesh-base"):
        stored.use("nothing")
    assert stored.primary("auto") == "sentimesh-mini"


def test_without_a_store_auto_is_the_default_model(tmp_path: Path) -> None:
    assert ModelStore(tmp_path / "absent").primary("auto") == "sentimesh-base"


def test_a_file_in_the_place_of_the_store_is_named(store: ModelStore, tmp_path: Path) -> None:
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("a file, not a folder")
    with pytest.raises(ModelStoreError, match=r"the model store in .* cannot be used"):
        pull_local(store, make_tiny_bert(tmp_path / "mine"), "mine")


def test_finbert_is_the_exported_one_while_none_is_stored(tmp_path: Path) -> None:
    exported = tmp_path / "finbert-onnx"
    store = ModelStore(tmp_path / "store", exported)
    with pytest.raises(ModelStoreError, match="there is no model finbert: there are sentimesh-base"):
        store.use("finbert")
    make_tiny_bert(exported)
    version = store.use("finbert")
    assert version.startswith("finbert-onnx-")
    assert store.primary("auto") == "finbert"
    assert load_model(store.source("finbert"), store=store.folder).model_version == version
    assert store.names() == []
    with pytest.raises(
        ModelStoreError, match=r"finbert is not in the store but in .*finbert-onnx \(model\.model_path\)"
    ):
        store.remove("finbert", in_use=())
    stored = pull_local(store, make_tiny_bert(tmp_path / "other", seed=9), "finbert")
    assert store.verify("finbert") == stored.version
    assert load_model(store.source("finbert"), store=store.folder).model_version == stored.version
    store.remove("finbert", in_use=())
    assert store.verify("finbert") == version
    assert {path.name for path in exported.iterdir()} == set(FILES)
