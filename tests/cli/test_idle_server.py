"""What a server imports where every framework is installed: none until a model needs it, and then that one only."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

FRAMEWORKS = ("onnxruntime", "torch", "tensorflow", "tensorrt", "tensorrt_lean", "tensorrt_rtx")
INSTALLED = [name for name in FRAMEWORKS if importlib.util.find_spec(name)]
LISTENERS = [f"--{name}-{option}" for name in ("http", "grpc", "metrics") for option in ("address=127.0.0.1", "port=0")]


def imported(repository: Path) -> set[str]:
    """The modules that a server process has imported by the time that it is ready, as Python itself reports them."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRIVET_")}
    command = [sys.executable, "-X", "importtime", "-m", "trivet", "serve", str(repository), "--log-format=json"]
    modules = set()
    with subprocess.Popen([*command, *LISTENERS], stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("import time:"):
                modules.add(line.rpartition("|")[2].strip())
            elif line.startswith("{") and "elapsed_s" in json.loads(line):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 0, rest[-2000:]
    assert "trivet.server" in modules
    return modules


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A repository with one ONNX model."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "tiny", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    onnx.save(model, str(tmp_path / "tiny" / "1" / "model.onnx"))
    return tmp_path


def test_a_server_without_models_imports_no_framework(tmp_path: Path) -> None:
    if len(INSTALLED) < 2:
        pytest.skip(f"of the frameworks there is only {INSTALLED}")
    assert imported(tmp_path).isdisjoint(FRAMEWORKS)


def test_a_server_with_a_model_imports_its_framework_alone(tiny: Path) -> None:
    if len(INSTALLED) < 2:
        pytest.skip(f"of the frameworks there is only {INSTALLED}")
    assert imported(tiny) & set(FRAMEWORKS) == {"onnxruntime"}
