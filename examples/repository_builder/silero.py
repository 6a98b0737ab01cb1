"""Silero VAD as a model whose memory the server keeps: implicit state of a sequence, many speakers in one batch.

The published graph wants its state with the batch as second dimension, and each window with the 64 samples before it. A
few nodes around it, and nothing in it, put the batch first and make those samples a second state.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONTEXT, WINDOW, RATE = 64, 512, 16000


def streaming(published: bytes) -> bytes:
    """The ONNX model with inputs ``samples`` [B, 512], ``state`` [B, 2, 128] and ``context`` [B, 64], for 16 kHz.

    Its outputs are ``speech`` [B, 1], ``next_state`` and ``next_context``.
    """
    model = onnx.load_from_string(published)
    graph = model.graph
    _rename(graph, {"state": "state_inside", "stateN": "next_state_inside", "output": "speech"})
    before = [
        helper.make_node("Concat", ["context", "samples"], ["input"], axis=1),
        helper.make_node("Transpose", ["state"], ["state_inside"], perm=[1, 0, 2]),
    ]
    after = [
        helper.make_node("Transpose", ["next_state_inside"], ["next_state"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["input", "context_start", "context_end", "context_axis"], ["next_context"]),
    ]
    constants = {
        "sr": np.array(RATE, np.int64),
        "context_start": np.array([-CONTEXT], np.int64),
        "context_end": np.array([np.iinfo(np.int64).max], np.int64),
        "context_axis": np.array([1], np.int64),
    }
    made = helper.make_graph(
        [*before, *graph.node, *after],
        "silero_vad_streaming",
        [_tensor("samples", WINDOW), _tensor("state", 2, 128), _tensor("context", CONTEXT)],
        [_tensor("speech", 1), _tensor("next_state", 2, 128), _tensor("next_context", CONTEXT)],
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    graph.CopyFrom(made)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename values, in the branches of its nodes too, which see the values around them."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = {value for other in attribute.g.node for value in other.output}
                _rename(attribute.g, {old: new for old, new in names.items() if old not in inner})


def _tensor(name: str, *dims: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims])
