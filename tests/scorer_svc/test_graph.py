from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from scorer_svc.graph import open_graph, session_options
from tests.scorer_svc.bert import bert_graph


def test_int8_sums_do_not_saturate_on_any_processor() -> None:
    """Without VNNI ONNX Runtime adds two products in 16 bits unless it is told not to."""
    weights = np.full((64, 16), 127, dtype=np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["values", "weights"], ["sums"])],
        "largest",
        [onnx.helper.make_tensor_value_info("values", onnx.TensorProto.UINT8, [4, 64])],
        [onnx.helper.make_tensor_value_info("sums", onnx.TensorProto.INT32, [4, 16])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options())
    [sums] = session.run(None, {"values": np.full((4, 64), 255, dtype=np.uint8)})
    assert np.all(sums == 64 * 255 * 127)


def test_a_graph_with_weights_in_files_of_their_own_runs(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole.onnx", tmp_path / "parted.onnx"
    graph = bert_graph(layers=1, hidden=32, heads=2, vocabulary=50)
    onnx.save(graph, whole)
    onnx.save(graph, parted, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    inputs = {"input_ids": np.array([[2, 7, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    expected, answer = (open_graph(path).session.run(None, inputs)[0] for path in (whole, parted))
    np.testing.assert_allclose(answer, expected, atol=1e-6)
