"""Which shapes are recorded as CUDA graphs. That they are replayed is tested on a GPU, in test_torch_gpu_graphs.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor
from trivet_backend_torch import graphs
from trivet_backend_torch.devices import Host
from trivet_backend_torch.graphs import Recorder, graph_shapes
from trivet_backend_torch.instance import TorchInstance
from trivet_backend_torch.network import Network
from trivet_backend_torch.settings import Settings
from trivet_backend_torch.signature import Argument, Signature

CONFIG = """max_batch_size: 20
input {{ name: "INPUT__0" data_type: TYPE_FP32 dims: [ {0} ] }}
output {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ {0} ] }}
"""


def cuda(*specs: str) -> str:
    return f"optimization {{ cuda {{ graphs: true {' '.join(f'graph_spec {{ {spec} }}' for spec in specs)} }} }}"


def sizes(config: str, context: Any) -> list[int]:
    return [shape.batch_size for shape in graph_shapes(context({}, config).config)]


def test_nothing_is_recorded_unless_it_is_asked_for(context: Any) -> None:
    assert sizes(CONFIG.format(4), context) == []


def test_by_default_small_batches_preferred_ones_and_the_largest(context: Any) -> None:
    preferred = "dynamic_batching { preferred_batch_size: [ 5 ] }"
    assert sizes(CONFIG.format(4) + cuda() + preferred, context) == [1, 2, 3, 4, 5, 6, 8, 12, 16, 20]
    assert sizes(CONFIG.format(4).replace("20", "0") + cuda(), context) == [0]


def test_a_graph_spec_gives_sizes_and_shapes(context: Any) -> None:
    spec = 'batch_size: 7 input { key: "INPUT__0" value { dim: [ 3, 9 ] } }'
    (shape,) = graph_shapes(context({}, CONFIG.format("-1, 9") + cuda(spec)).config)
    assert (shape.batch_size, shape.dims) == (7, {"INPUT__0": (3, 9)})


def test_inputs_of_a_scheduler_cannot_be_made_up(context: Any) -> None:
    start = """sequence_batching { control_input {
        name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }
    } }"""
    with pytest.raises(InvalidArgumentError, match=r"cannot be had with inputs that a scheduler makes \(START\)"):
        graph_shapes(context({}, CONFIG.format(4) + cuda() + start).config)


@pytest.mark.parametrize(
    ("dims", "specs", "message"),
    [
        ("-1", [], r"needs a graph_spec with the shape of input 'INPUT__0' among \[-1\]"),
        ("4", ["batch_size: 21"], "has batch_size 21, expected a batch_size from 1 to 20"),
        ("4", ['batch_size: 1 input { key: "INPUT__0" value { dim: [ 5 ] } }'], r"among \[4\].*; it has \[5\]"),
    ],
)
def test_shapes_that_cannot_be_recorded_fail_the_load(
    dims: str, specs: list[str], message: str, context: Any, instance: Any
) -> None:
    files = {"model.pt": lambda path: torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 4)).save(str(path))}
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context(files, CONFIG.format(dims) + cuda(*specs)))


def test_an_instance_on_the_cpu_runs_without(context: Any, instance: Callable[..., ArrayInstance]) -> None:
    files = {"model.pt": lambda path: torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 4)).save(str(path))}
    made = instance(context(files, CONFIG.format(4) + cuda()))
    x = Tensor.from_numpy("INPUT__0", np.full((1, 4), -1, np.float32))
    assert made.execute({"INPUT__0": x}, ["OUTPUT__0"])["OUTPUT__0"].tolist() == [[0] * 4]


# --- recording, on a machine that records nothing


class Graph:
    """A graph that ends as the test says; replayed, it does nothing."""

    ends: ClassVar[list[str | None]] = []
    """What is wrong when each recording ends."""
    made: ClassVar[list[Graph]] = []

    def __init__(self) -> None:
        self.log: list[str] = []
        self.made.append(self)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self.log.append(f"begin {pool} {capture_error_mode}")

    def capture_end(self) -> None:
        self.log.append("end")
        wrong = self.ends.pop(0)
        if wrong:
            raise RuntimeError(f"CUDA error: {wrong}")

    def replay(self) -> None:
        self.log.append("replay")


SPOILT = "operation failed due to a previous error during capture"
WAITS = "operation not permitted when stream is capturing"


@pytest.fixture
def record(context: Any, instance: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Record one shape of a network, whose run fails while it is recorded if ``run_fails`` says so."""

    def made(ends: Sequence[str | None], run_fails: str = "") -> None:
        Graph.ends, Graph.made = list(ends), []
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
        monkeypatch.setattr(graphs, "STREAMS", SimpleNamespace(alone=lambda stream: nullcontext()))
        device = SimpleNamespace(
            stream=SimpleNamespace(synchronize=lambda: None), device=torch.device("cpu"), reused=set()
        )

        def forward(x: Any) -> Any:
            if run_fails and Graph.made:
                raise RuntimeError(f"CUDA error: {run_fails}")
            return x * 2

        network = Network(forward, Signature((Argument("INPUT__0", "tensor"),), outputs=("OUTPUT__0",)))
        recorder = Recorder(network, device, "m")  # type: ignore[arg-type]
        made_context = context({}, CONFIG.format(4) + cuda("batch_size: 3"))
        one = TorchInstance(made_context, Settings(), replace(network, forward=recorder), Host(torch.device("cpu")))
        try:
            recorder.record(made_context.config, one, graph_shapes(made_context.config))
        finally:
            one.close()

    return made


def test_a_recording_goes_to_the_pool_of_the_instance_and_leaves_other_threads_alone(record: Any) -> None:
    record([None])
    assert [graph.log for graph in Graph.made] == [["begin (0, 7) thread_local", "end", "replay"]]


def test_a_recording_that_something_else_has_ended_is_made_again(record: Any) -> None:
    record([SPOILT, SPOILT, None])
    assert [graph.log[-1] for graph in Graph.made] == ["end", "end", "replay"]
    with pytest.raises(InvalidArgumentError, match="other work in the server waited for the whole GPU meanwhile, 3"):
        record([SPOILT] * 3)


def test_a_network_that_waits_fails_its_load_at_once_with_its_own_error(record: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"as a CUDA graph.*it waits for the GPU.*{WAITS}"):
        record([SPOILT], run_fails=WAITS)
    assert [graph.log[-1] for graph in Graph.made] == ["end"]


def test_pytorch_has_what_a_recording_calls() -> None:
    graph = torch.cuda.CUDAGraph
    assert {"pool", "capture_error_mode"} <= inspect.signature(graph.capture_begin).parameters.keys()
    assert callable(graph.capture_end)
    assert callable(graph.replay)
    assert callable(torch.cuda.graph_pool_handle)
    assert hasattr(torch._C, "_cuda_endAllocateToPool")
