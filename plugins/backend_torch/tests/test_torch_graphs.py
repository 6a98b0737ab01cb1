"""Which shapes are recorded as CUDA graphs. That they are replayed is tested on a GPU, in test_torch_gpu.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor
from trivet_backend_torch.graphs import graph_shapes

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
