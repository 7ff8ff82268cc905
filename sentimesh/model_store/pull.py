"""Getting a model into the store: from the hub or from this machine, checked before it takes its name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from scorer_svc.manifest import MANIFEST, Manifest
from scorer_svc.model_files import CONFIG, FILES, GRAPH, TOKENIZER, files_of, read_config, read_model
from scorer_svc.vocabulary import load_vocabulary
from scorer_svc.vocabulary_tokens import extend_model
from sentimesh.model_store.errors import ModelStoreError, refuse_full_disk
from sentimesh.model_store.hub import Repository
from sentimesh.model_store.quantize import copy_graph, quantize
from sentimesh.model_store.store import ModelStore, check
from sentimesh.settings import Finbert

EXPORTED_GRAPH = Path("onnx") / GRAPH


@dataclass(frozen=True, slots=True)
class Making:
    """What is done to a model: tokens of the crypto vocabulary added, weights made int8."""

    vocabulary: bool
    int8: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, as its manifest says it."""

    source: str
    revision: str | None = None
    licence: str = "not stated"


def pull_finbert(
    store: ModelStore,
    options: Finbert,
    making: Making = Making(vocabulary=True),
    *,
    name: str = "finbert",
    endpoint: str | None = None,
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
        origin = Origin(repository.source, options.revision, repository.licence)
        manifest = _store(store, fetched, name, making, origin)
        shutil.rmtree(fetched.parent)
    return manifest


def pull_local(
    store: ModelStore,
    path: Path,
    name: str,
    making: Making = Making(vocabulary=False),
) -> Manifest:
    """Store the model of a folder, or the one of an ONNX file with the other two files beside it.

    The folder is only read. Raises ModelStoreError, ModelError.
    """
    store.refuse_name(name)
    graph, folder = _located(path)
    read_config(folder / CONFIG)
    with store.locked():
        copied = store.downloads(name, "local")
        try:
            _copy_neighbours(folder, copied)
            copy_graph(graph, copied / GRAPH)
            return _store(store, copied, name, making, Origin(str(path.resolve())))
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


def _copy_neighbours(source: Path, target: Path) -> None:
    """Copy the files of a model but its graph."""
    for file in files_of(source):
        if file != GRAPH:
            shutil.copyfile(source / file, target / file)


def _store(store: ModelStore, files: Path, name: str, making: Making, origin: Origin) -> Manifest:
    """Make the folder of a model out of its files and put it in the name's place."""
    with store.new(name) as folder:
        added, extended = 0, folder / "extended"
        if making.vocabulary:
            refuse_full_disk(folder, (files / GRAPH).stat().st_size, "adding the vocabulary")
            added = len(extend_model(files, extended, load_vocabulary()).added)
            files = extended
        _copy_neighbours(files, folder)
        quantization = None
        if making.int8:
            quantization = quantize(files / GRAPH, folder / GRAPH)
        else:
            copy_graph(files / GRAPH, folder / GRAPH)
        shutil.rmtree(extended, ignore_errors=True)
        made = read_model(folder, name)
        check(made)
        manifest = Manifest(
            name=name,
            version=made.version,
            source=origin.source,
            revision=origin.revision,
            files=dict(made.digests),
            labels=made.labels,
            max_length=made.max_positions,
            licence=origin.licence,
            vocabulary=added,
            quantization=quantization,
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest
