"""Getting a model into the store: from the hub or from this machine, checked before it takes its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from scorer_svc.manifest import MANIFEST, Manifest
from scorer_svc.model_files import CONFIG, FILES, GRAPH, TOKENIZER, read_config, read_model
from sentimesh.model_store.errors import ModelStoreError
from sentimesh.model_store.hub import Repository
from sentimesh.model_store.quantize import copy_graph, quantize
from sentimesh.model_store.store import ModelStore, check
from sentimesh.settings import Finbert

EXPORTED_GRAPH = Path("onnx") / GRAPH


def pull_finbert(
    store: ModelStore, options: Finbert, *, name: str = "finbert", int8: bool = True, endpoint: str | None = None
) -> Manifest:
    """Fetch the configured export of FinBERT and store it; what was fetched before a failure is kept for the next try.

    ``endpoint``: the hub, the one huggingface_hub is set to when None. Raises ModelStoreError, ModelError.
    """
    store.refuse_name(name)
    with store.locked():
        repository = Repository(options.repository, options.revision, endpoint)
        fetched = store.downloads(name, options.revision)
        for remote, local in ((CONFIG, CONFIG), (TOKENIZER, TOKENIZER), (options.graph, GRAPH)):
            repository.fetch(remote, fetched / local)
            if local == CONFIG:
                # Before hundreds of megabytes for a model that could not be used.
                read_config(fetched / CONFIG)
        manifest = _store(
            store,
            fetched,
            name,
            int8=int8,
            source=repository.source,
            revision=options.revision,
            licence=repository.licence,
        )
        shutil.rmtree(fetched.parent)
    return manifest


def pull_local(store: ModelStore, path: Path, name: str, *, int8: bool = True) -> Manifest:
    """Store the model of a folder, or the one of an ONNX file with the other two files beside it.

    The folder is only read. Raises ModelStoreError, ModelError.
    """
    store.refuse_name(name)
    graph, folder = _located(path)
    read_config(folder / CONFIG)
    with store.locked():
        copied = store.downloads(name, "local")
        for file in (TOKENIZER, CONFIG):
            shutil.copyfile(folder / file, copied / file)
        copy_graph(graph, copied / GRAPH)
        try:
            return _store(
                store, copied, name, int8=int8, source=str(path.resolve()), revision=None, licence="not stated"
            )
        finally:
            shutil.rmtree(copied)


def _located(path: Path) -> tuple[Path, Path]:
    """Return the graph, and the folder of the other two files."""
    if path.is_file():
        graph, folder = path, path.parent
    else:
        graph = next((path / file for file in (GRAPH, EXPORTED_GRAPH) if (path / file).is_file()), path / GRAPH)
        folder = path
    missing = [file.name for file in (graph, folder / TOKENIZER, folder / CONFIG) if not file.is_file()]
    if missing:
        raise ModelStoreError(
            f"{path} is no model: {folder} has no {' and no '.join(missing)}; give {', '.join(FILES)}"
        )
    return graph, folder


def _store(
    store: ModelStore, files: Path, name: str, *, int8: bool, source: str, revision: str | None, licence: str
) -> Manifest:
    """Make the folder of a model out of its three files and put it in the name's place."""
    with store.new(name) as folder:
        for file in (TOKENIZER, CONFIG):
            shutil.copyfile(files / file, folder / file)
        quantization = None
        if int8:
            quantization = quantize(files / GRAPH, folder / GRAPH)
        else:
            copy_graph(files / GRAPH, folder / GRAPH)
        made = read_model(folder, name)
        check(made)
        manifest = Manifest(
            name=name,
            version=made.version,
            source=source,
            revision=revision,
            files=dict(made.digests),
            labels=made.labels,
            max_length=made.max_positions,
            licence=licence,
            quantization=quantization,
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest
