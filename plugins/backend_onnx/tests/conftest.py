"""Small ONNX models, and contexts to load them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance, ModelContext
from trivet.testing import model_context, running_instance
from trivet_backend_onnx.backend import OnnxBackend

Shape = Sequence[int | str | None] | None
Tensors = Mapping[str, tuple[int, Shape]]


BuildModel = Callable[..., onnx.ModelProto]
MakeContext = Callable[..., ModelContext]


@pytest.fixture(scope="session")
def build_model() -> BuildModel:
    """Make a model of nodes, inputs and outputs; tensors as ``{name: (TensorProto type, shape)}``."""

    def build(
        nodes: Sequence[onnx.NodeProto],
        inputs: Tensors,
        outputs: Tensors,
        initializers: Sequence[onnx.TensorProto] = (),
        opset: int = 18,
        ir_version: int = 10,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info(name, *tensor) for name, tensor in inputs.items()],
            [helper.make_tensor_value_info(name, *tensor) for name, tensor in outputs.items()],
            list(initializers),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)

    return build


@pytest.fixture(scope="session")
def identity(build_model: BuildModel) -> Callable[..., onnx.ModelProto]:
    """``y = x`` of a type and shape."""

    def make(data_type: int = TensorProto.FLOAT, shape: Shape = (None, None)) -> onnx.ModelProto:
        return build_model(
            [helper.make_node("Identity", ["x"], ["y"])], {"x": (data_type, shape)}, {"y": (data_type, shape)}
        )

    return make


@pytest.fixture(scope="session")
def add_sub(build_model: BuildModel) -> onnx.ModelProto:
    """``sum = a + b`` and ``difference = a - b`` of float32 [batch, 4]."""
    float_4 = (TensorProto.FLOAT, ("batch", 4))
    return build_model(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        {"a": float_4, "b": float_4},
        {"sum": float_4, "difference": float_4},
    )


@pytest.fixture
def context(tmp_path: Path) -> MakeContext:
    """Write a model into a repository and describe it to the backend; ``config`` is the text of a config.pbtxt."""

    def make(
        model: onnx.ModelProto | bytes | None,
        config: str = "",
        *,
        name: str = "m",
        options: Mapping[str, str] | None = None,
    ) -> ModelContext:
        made = model_context(tmp_path / name, config, backend="onnxruntime", name=name, options=options)
        if model is not None:
            data = model if isinstance(model, bytes) else model.SerializeToString()
            (made.version_path / "model.onnx").write_bytes(data)
        return made

    return make


@pytest.fixture(scope="session")
def backend() -> OnnxBackend:
    return OnnxBackend()


@pytest.fixture
def instance(backend: OnnxBackend) -> Iterator[Callable[[ModelContext], ArrayInstance]]:
    """Complete the configuration, load the model and create one CPU instance of it."""
    with ExitStack() as stack:

        def make(described: ModelContext, **placement: Any) -> ArrayInstance:
            created = stack.enter_context(running_instance(backend, described, **placement))
            assert isinstance(created, ArrayInstance)
            return created

        yield make
