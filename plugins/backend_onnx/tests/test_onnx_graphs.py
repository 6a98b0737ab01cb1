"""CUDA graphs: which values stay where, and when a run is captured.

What a GPU makes of it needs one. All else is the same on a CPU: real sessions, with memory bound to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance, InstanceContext
from trivet.errors import InvalidArgumentError
from trivet.placement import gpu_count
from trivet.tensor import Tensor
from trivet_backend_onnx import graphs
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.graphs import CapturedRuns
from trivet_backend_onnx.providers import CUDA, captures_graphs, execution_providers
from trivet_backend_onnx.runtime import ort

Instance = Callable[..., ArrayInstance]

GRAPHS = """optimization { execution_accelerators { gpu_execution_accelerator {
    name: "cuda" parameters { key: "enable_cuda_graph" value: "1" }
} } } """


class Session:
    """A session whose runs are noted: the graph that each is to be captured for, and the addresses it works on."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = ort.InferenceSession(model.SerializeToString())
        self.graph_ids: list[str] = []
        self.addresses: list[tuple[int, ...]] = []

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._session.run_with_iobinding(binding, options)
        self.graph_ids.append(options.get_run_config_entry("gpu_graph_id"))
        self.addresses.append(tuple(value.data_ptr() for value in binding.get_outputs()))


@pytest.fixture
def session(add_sub: onnx.ModelProto) -> Session:
    return Session(add_sub)


@pytest.fixture
def runs(session: Session) -> CapturedRuns:
    return CapturedRuns(session, "cpu", 0, ort.RunOptions)


def sums(runs: CapturedRuns, rows: int, number: float) -> list[float]:
    a = np.full((rows, 4), number, np.float32)
    (result,) = runs.run({"a": a, "b": np.ones_like(a)}, ["sum"])
    assert result.numpy().shape == a.shape
    return sorted(set(result.numpy().reshape(-1).tolist()))


def test_the_first_run_of_a_shape_is_captured_and_the_others_work_on_the_same_memory(
    session: Session, runs: CapturedRuns
) -> None:
    assert [sums(runs, 2, number) for number in (1, 2, 3)] == [[2], [3], [4]]
    # One to find the outputs' sizes, one that is captured, and those that replay.
    assert session.graph_ids == ["-1", "1", "1", "1"]
    assert len(set(session.addresses)) == 1


def test_each_combination_of_shapes_has_a_graph(session: Session, runs: CapturedRuns) -> None:
    assert [sums(runs, rows, rows) for rows in (1, 2, 1, 2)] == [[2], [3], [2], [3]]
    assert session.graph_ids == ["-1", "1", "-1", "2", "1", "2"]


def test_each_choice_of_outputs_has_a_graph(session: Session, runs: CapturedRuns) -> None:
    sums(runs, 1, 1)
    ones = np.ones((1, 4), np.float32)
    both = runs.run({"a": ones, "b": ones}, ["sum", "difference"])
    assert [value.numpy().tolist() for value in both] == [[[2] * 4], [[0] * 4]]
    assert session.graph_ids == ["-1", "1", "-1", "2"]


def test_beyond_the_limit_runs_are_not_captured(
    session: Session, runs: CapturedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LIMIT", 1)
    assert [sums(runs, rows, 1) for rows in (1, 2, 2, 1)] == [[2]] * 4
    assert session.graph_ids == ["-1", "1", "-1", "-1", "1"]


def test_an_array_that_is_not_contiguous(runs: CapturedRuns) -> None:
    for _ in range(2):
        a = np.arange(8, dtype=np.float32).reshape(4, 2).T
        (result,) = runs.run({"a": a, "b": a}, ["sum"])
        assert result.numpy().tolist() == (2 * a).tolist()


@pytest.mark.parametrize(
    ("config", "captures"),
    [
        ("", False),
        (GRAPHS, True),
        (GRAPHS.replace('"1"', '"0"'), False),
        (GRAPHS.replace("cuda", "tensorrt").replace("enable_tensorrt_graph", "trt_cuda_graph_enable"), True),
    ],
)
def test_who_captures(config: str, captures: bool, context: Any) -> None:
    assert captures_graphs(execution_providers(context(None, config), "GPU", 0)) is captures
    assert not captures_graphs(execution_providers(context(None, config), "CPU", 0))


def test_instances_cannot_share_what_is_captured(add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend) -> None:
    share = 'parameters { key: "share_session_between_instances" value { string_value: "1" } }'
    made_context = context(add_sub, GRAPHS + share)
    model = backend.load(made_context)
    with pytest.raises(InvalidArgumentError, match="cannot have share_session_between_instances with CUDA graphs"):
        model.create_instance(InstanceContext("m_0", "GPU"))


@pytest.mark.gpu
@pytest.mark.skipif(
    not gpu_count() or CUDA not in ort.get_available_providers(), reason="needs a GPU and onnxruntime-gpu"
)
def test_a_gpu_replays(build_model: Any, context: Any, instance: Instance) -> None:
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    model = build_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, (None, 4))},
        {"y": (TensorProto.FLOAT, (None, 4))},
        [weights],
    )
    made = instance(context(model, GRAPHS), kind="GPU")
    for number in range(6):
        x = np.full((1 + number % 2, 4), number, np.float32)
        results: Any = made.execute({"x": Tensor.from_numpy("x", x)}, ["y"])
        assert results["y"].tolist() == x.tolist()
