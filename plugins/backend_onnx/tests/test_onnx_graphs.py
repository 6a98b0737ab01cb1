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
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.placement import gpu_count
from trivet.tensor import Tensor
from trivet_backend_onnx import graphs
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.graphs import CapturedRuns
from trivet_backend_onnx.instance import OnnxInstance
from trivet_backend_onnx.providers import CPU, CUDA, captures_graphs, execution_providers
from trivet_backend_onnx.runtime import ort
from trivet_backend_onnx.settings import SessionSettings
from trivet_backend_onnx.signature import Signature

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


def test_a_scalar(build_model: Any) -> None:
    scalar = (TensorProto.FLOAT, ())
    runs = CapturedRuns(
        Session(build_model([helper.make_node("Neg", ["x"], ["y"])], {"x": scalar}, {"y": scalar})),
        "cpu",
        0,
        ort.RunOptions,
    )
    for number in range(3):
        (result,) = runs.run({"x": np.array(number, np.float32)}, ["y"])
        assert result.numpy().tolist() == -number


def test_outputs_outlive_their_binding(runs: CapturedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until 1.30 or so ONNX Runtime hands out views of the binding's list, which the process does not survive."""

    def views(binding: Any) -> list[Any]:
        return [ort.OrtValue(value) for value in binding._iobinding.get_outputs()]

    monkeypatch.setattr(ort.IOBinding, "get_outputs", views)
    assert [sums(runs, 2, number) for number in (1, 2)] == [[2], [3]]


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


def test_a_session_that_is_only_looked_at_captures_nothing(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not optimized, and has nodes then that no graph takes."""
    real, given = ort.InferenceSession, []

    def on_cpu(path: str, options: Any, providers: Any, **more: Any) -> Any:
        given.extend(providers)
        return real(path, options, providers=[CPU], **more)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", on_cpu)
    made_context = context(add_sub, GRAPHS + "instance_group { kind: KIND_GPU }")
    # What it really runs on is not the GPU that was asked for.
    with pytest.raises(UnavailableError):
        backend.auto_complete(made_context)
    assert given == [(CUDA, {"device_id": "0"}), (CPU, {})]


def test_instances_cannot_share_what_is_captured(add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend) -> None:
    share = 'parameters { key: "share_session_between_instances" value { string_value: "1" } }'
    made_context = context(add_sub, GRAPHS + share)
    model = backend.load(made_context)
    with pytest.raises(InvalidArgumentError, match="cannot have share_session_between_instances with CUDA graphs"):
        model.create_instance(InstanceContext("m_0", "GPU"))


SHRINKAGE = 'parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0;gpu:%d" } }'


@pytest.mark.parametrize(("device_id", "is_refused"), [(0, False), (1, True)])
def test_memory_that_a_graph_uses_is_not_given_back(
    device_id: int, is_refused: bool, add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    given = context(add_sub, SHRINKAGE % 1)
    backend.auto_complete(given)
    session = ort.InferenceSession(str(given.version_path / "model.onnx"))

    def make() -> OnnxInstance:
        settings = SessionSettings.read(given)
        return OnnxInstance(given, settings, session, Signature.of(session), device_id, captures=True)

    if not is_refused:
        make()
        return
    with pytest.raises(InvalidArgumentError, match="shrinkage of 'gpu:1' with CUDA graphs"):
        make()


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
