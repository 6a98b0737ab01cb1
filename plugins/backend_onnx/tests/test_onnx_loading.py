"""Files that cannot be loaded, and what this package does before and after it loads one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet_backend_onnx.runtime import ort

Instance = Callable[..., ArrayInstance]


def test_a_missing_file(context: Any, instance: Instance) -> None:
    with pytest.raises(UnavailableError, match=r"unable to find '.*/m/1/model.onnx' for model 'm'.*no ONNX file"):
        instance(context(None))


def test_a_missing_file_beside_one_of_another_name(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    made_context = context(None)
    onnx.save_model(add_sub, made_context.version_path / "net.onnx")
    with pytest.raises(UnavailableError, match=r"set default_model_filename .* \(ONNX files there: net.onnx"):
        instance(made_context)


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1", b"\x00" * 64], ids=repr)
def test_a_damaged_file(data: bytes, context: Any, instance: Instance) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=r"unable to load model 'm' version 1: onnx runtime error \d+: .* -- the file is damaged, incomplete",
    ):
        instance(context(data))


def test_a_truncated_file(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match="unable to load model 'm' version 1: onnx runtime error"):
        instance(context(add_sub.SerializeToString()[:-7]))


def test_a_name_that_is_no_text(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Identity", ["input"], ["output"])],
        {"input": (TensorProto.FLOAT, (1,))},
        {"output": (TensorProto.FLOAT, (1,))},
    )
    with pytest.raises(InvalidArgumentError, match=r"the name b'\\xeenput' in the model is not valid UTF-8"):
        instance(context(model.SerializeToString().replace(b"input", b"\xeenput")))


@pytest.mark.parametrize("newer", [{"opset": 99}, {"ir_version": 99}], ids=str)
def test_a_model_of_the_future(newer: dict[str, int], build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, (1,))},
        {"y": (TensorProto.FLOAT, (1,))},
        **newer,
    )
    with pytest.raises(InvalidArgumentError, match=r"model 'm'.* 99.* this is onnxruntime .*: upgrade it, or export"):
        instance(context(model))


def test_an_unknown_operator(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Frobnicate", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, (1,))},
        {"y": (TensorProto.FLOAT, (1,))},
    )
    with pytest.raises(InvalidArgumentError, match=r"Frobnicate.* name the library .* op_library_filename"):
        instance(context(model))


def test_missing_external_data(build_model: Any, context: Any, instance: Instance) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, (1,), [1.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    model = build_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, (1,))},
        {"y": (TensorProto.FLOAT, (1,))},
        initializers=[weights],
    )
    with pytest.raises(InvalidArgumentError, match=r"unable to load model 'm' version 1: .*weights.bin"):
        instance(context(model))


def test_one_bad_model_does_not_hurt_the_next(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError):
        instance(context(b"no model", name="bad"))
    instance(context(add_sub, name="good"))


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_plugin_imports_no_framework() -> None:
    code = """
import sys
from trivet.backend import Backend
from trivet.plugins import PluginRegistry
import trivet_backend_onnx.plugin as plugin
registry = PluginRegistry.of(onnx=plugin)
assert registry.backends["onnxruntime"].platforms == ("onnxruntime_onnx",)
assert "onnxruntime" not in sys.modules
registry.create(registry.backends["onnxruntime"], Backend)
print("onnxruntime" in sys.modules)
"""
    assert run_python(code).strip() == "True"


def test_without_onnx_runtime_the_error_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from trivet.backend import Backend
from trivet.errors import UnavailableError
from trivet.plugins import PluginRegistry
import trivet_backend_onnx.plugin as plugin
registry = PluginRegistry.of(onnx=plugin)
try:
    registry.create(registry.backends["onnxruntime"], Backend)
except UnavailableError as error:
    print(error)
"""
    assert "pip install 'trivet-backend-onnx[cpu]'" in run_python(code)


@pytest.mark.skipif(not hasattr(ort, "set_default_logger_callback"), reason="needs a newer ONNX Runtime")
def test_what_onnx_runtime_logs_goes_to_pythons_log() -> None:
    code = """
import logging
import numpy as np
from onnx import TensorProto, helper
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.runtime import ort
OnnxBackend()
graph = helper.make_graph(
    [helper.make_node("Unsqueeze", ["x", "axes"], ["y"])], "g",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,)),
        helper.make_tensor_value_info("axes", TensorProto.INT64, (1,)),
    ],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 3))],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
options = ort.SessionOptions()
options.logid = "m"
ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": np.ones(1, "f4"), "axes": np.array([0])})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "WARNING onnxruntime m: Expected shape from model" in done.stderr


@pytest.mark.skipif(not hasattr(ort, "set_global_thread_pool_sizes"), reason="needs a newer ONNX Runtime")
def test_global_thread_pools_are_shared_by_all_sessions() -> None:
    code = """
import logging, pathlib, tempfile
import numpy as np
from onnx import TensorProto, helper, save_model
from trivet.backend import InstanceContext, ModelContext
from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor
from trivet_backend_onnx.backend import OnnxBackend
from_shape = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (None, 2))
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [from_shape("x")], [from_shape("y")])
folder = pathlib.Path(tempfile.mkdtemp(), "m", "1")
folder.mkdir(parents=True)
save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
backend = OnnxBackend()
def load(threads):
    options = {"enable-global-threadpool": "1", "intra_op_thread_count": threads, "inter_op_thread_count": "1"}
    context = ModelContext("m", 1, folder.parent, folder, ModelConfig(name="m"), logging.getLogger("m"), options)
    backend.auto_complete(context)
    model = backend.load(context)
    return model.create_instance(InstanceContext("m_0", "CPU"))
for _ in range(2):
    instance = load("2")
    assert not instance._session.get_session_options().use_per_session_threads
    assert instance.execute({"x": Tensor.from_numpy("x", np.ones((1, 2), "f4"))}, ["y"])["y"].tolist() == [[1, 1]]
try:
    load("3")
except InvalidArgumentError as error:
    print(error)
"""
    assert "the global thread pools have (2, 1) threads already and cannot become (3, 1)" in run_python(code)
