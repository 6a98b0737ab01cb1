"""One network, FP32 ``x`` [B, 1024] times 4 MB of weights that are all 1, as a model of every backend."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 1024

CONFIG = f"""backend: "{{backend}}"
max_batch_size: 8
input {{{{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}}}
output {{{{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}}}
instance_group {{{{ count: 1 kind: KIND_CPU }}}}
"""

EAGER = f"""
import torch

class Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty({WIDTH}, {WIDTH}))

    def forward(self, x):
        return x @ self.weight
"""

PYTHON = """
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.weight = np.load(Path(args["model_repository"], args["model_version"], "weight.npy"))

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array @ self.weight)]) for array in arrays]
"""

# In a process of its own: TensorFlow is not to be imported into that of the tests.
TENSORFLOW = f"""
import sys
import tensorflow as tf

class Wide(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(tf.ones([{WIDTH}, {WIDTH}]))

    @tf.function(input_signature=[tf.TensorSpec([None, {WIDTH}], tf.float32, "x")])
    def serve(self, x):
        return {{"y": x @ self.weight}}

wide = Wide()
tf.saved_model.save(wide, sys.argv[1], signatures=wide.serve)
"""


def onnx_model(folder: Path) -> None:
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", WIDTH]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.ones((WIDTH, WIDTH), np.float32), "w")
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([product], "wide", [x], [y], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))


def torchscript(folder: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="`torch.jit")
        torch.jit.trace(_linear(), torch.zeros(2, WIDTH)).save(str(folder / "model.pt"))


def exported(folder: Path) -> None:
    import torch

    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(_linear(), (torch.zeros(2, WIDTH),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "model.pt2")


def eager(folder: Path) -> None:
    import torch

    (folder / "model.py").write_text(EAGER)
    torch.save({"weight": torch.ones(WIDTH, WIDTH)}, folder / "model.pt")


def _linear() -> Any:
    import torch

    network = torch.nn.Linear(WIDTH, WIDTH, bias=False).eval()
    torch.nn.init.ones_(network.weight)
    return network


def saved_model(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", TENSORFLOW, str(folder / "model.savedmodel")], check=True)


def python(folder: Path) -> None:
    (folder / "model.py").write_text(PYTHON)
    np.save(folder / "weight.npy", np.ones((WIDTH, WIDTH), np.float32))


@dataclass(frozen=True)
class Kind:
    """A kind of model: who serves it, what has to be installed, and what writes it into a version's folder."""

    backend: str
    framework: str
    write: Callable[[Path], None]


KINDS = {
    "onnx": Kind("onnxruntime", "onnxruntime", onnx_model),
    "torchscript": Kind("pytorch", "torch", torchscript),
    "torch.export": Kind("pytorch", "torch", exported),
    "torch eager": Kind("pytorch", "torch", eager),
    "savedmodel": Kind("tensorflow", "tensorflow", saved_model),
    "python": Kind("python", "numpy", python),
}


def is_installed(kind: str) -> bool:
    """Whether its framework is; its backend always is, where the tests run."""
    return importlib.util.find_spec(KINDS[kind].framework) is not None
