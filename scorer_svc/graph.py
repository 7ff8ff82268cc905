"""An ONNX graph made ready to run on one thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from scorer_svc.activation_ranges import fix_ranges, quantised_activations
from scorer_svc.first_token import first_token_only
from scorer_svc.sentiment import Device, ModelError
from sentimesh.native import has_vnni

PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# What ONNX Runtime warns of is for its developers, and an error reaches us as an exception.
LOG_FATAL = 4
# Slower on a processor than the addition and the normalisation that it makes one: sentimesh-base takes a tenth longer.
SLOWER_THAN_ITS_PARTS: dict[Device, list[str]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that can run; ``neighbours_matter`` where activations are quantised by the range of a whole input."""

    session: onnxruntime.InferenceSession
    neighbours_matter: bool


def open_graph(path: Path, device: Device = "cpu", ranges: Path | None = None) -> Graph:
    """Load a graph and spare what its logits are not made of (:func:`first_token_only`).

    ``ranges``: the file with those of all activations that it quantises, to be fixed (:func:`fix_ranges`). Raises
    ModelError when it cannot be used, and what onnx and ONNX Runtime raise: neither has a base class for that.
    """
    model = onnx.load(path, load_external_data=False)
    # Weights in files of their own are found from the graph's place alone, so such a graph runs as it is.
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    changed = not external and first_token_only(model)
    if ranges is not None and not external:
        fix_ranges(model, ranges)
        changed = True
    return Graph(
        onnxruntime.InferenceSession(
            model.SerializeToString() if changed else path,
            session_options(),
            # What a device has no kernel for is computed by the processor.
            providers=list(dict.fromkeys((PROVIDERS[device], PROVIDERS["cpu"]))),
            disabled_optimizers=SLOWER_THAN_ITS_PARTS[device],
        ),
        bool(quantised_activations(model)),
    )


def refuse_missing_device(device: Device) -> None:
    """Raise ModelError when the installed ONNX Runtime cannot compute there."""
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ModelError(
            f"the installed ONNX Runtime cannot compute on {device}: install onnxruntime-gpu in place of onnxruntime, "
            "or set model.inference_device to cpu"
        )


def session_options() -> onnxruntime.SessionOptions:
    """Return how a graph runs here: on one thread, with int8 sums that do not saturate on any processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_FATAL
    if not has_vnni():
        # With VNNI no sum saturates, and this would take twice the time.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options
