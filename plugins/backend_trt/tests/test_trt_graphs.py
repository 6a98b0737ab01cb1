"""For which shapes graphs are captured, and which one serves an execution."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from trivet.config import POOL, ModelConfig
from trivet.errors import InvalidArgumentError
from trivet_backend_trt.graphs import GraphShapes, GraphTable, graph_shapes
from trivet_backend_trt.profiles import Bounds, Profile
from trivet_backend_trt.signature import Signature, TensorSignature

PROFILE = Profile(0, {"x": Bounds((1, 1), (4, 16), (8, 32))}, {})
SIGNATURE = Signature(
    {"x": TensorSignature("x", "FLOAT", (-1, -1)), "y": TensorSignature("y", "FLOAT", (-1, 3))}, {}, (PROFILE,)
)


def config(text: str) -> Any:
    return text_format.Parse(f'name: "m" {text}', ModelConfig(), descriptor_pool=POOL)


def test_without_a_specification_for_the_batch_sizes_that_are_likely() -> None:
    wanted = graph_shapes(
        config("max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 16 ] }"), SIGNATURE, PROFILE
    )
    assert [shapes.shapes for shapes in wanted] == [{"x": (n, 16), "y": (n, 3)} for n in (1, 4, 8)]


def test_a_specification_says_what_the_plan_leaves_open() -> None:
    spec = 'graph_spec { batch_size: 2 input { key: "x" value { dim: [ 7 ] } } graph_lower_bound { batch_size: 1 } }'
    (wanted,) = graph_shapes(config(f"max_batch_size: 8 optimization {{ cuda {{ {spec} }} }}"), SIGNATURE, PROFILE)
    assert wanted == GraphShapes({"x": (2, 7), "y": (2, 3)}, 1)


@pytest.mark.parametrize(("spec", "reason"), [
    ("batch_size: 9", "batch_size 9, expected 1 to 8"),
    ("", "batch_size 0, expected 1 to 8"),
    ("batch_size: 1", r"gives input 'x' the shape \[-1\], expected sizes for \[-1\]"),
    ('batch_size: 1 input { key: "z" value { } }', "names input 'z', and the model's inputs are x, y"),
    ('batch_size: 1 input { key: "x" value { dim: [ 1, 2 ] } }', r"'x' the shape \[1, 2\]"),
    ('batch_size: 1 input { key: "x" value { dim: [ 1 ] } } input { key: "y" value { dim: [ 4 ] } }', r"'y' .*\[4\]"),
    ('batch_size: 2 input { key: "x" value { dim: [ 4 ] } } graph_lower_bound { batch_size: 3 }',
     "graph_lower_bound of batch_size 3, expected 1 to 2"),
    ('batch_size: 2 input { key: "x" value { dim: 4 } } graph_lower_bound { input { key: "x" value { dim: 3 } } }',
     r"graph_lower_bound of \[3\] for input 'x', which is not supported"),
])  # fmt: skip
def test_a_specification_that_does_not_fit_is_refused(spec: str, reason: str) -> None:
    asked = config(f"max_batch_size: 8 optimization {{ cuda {{ graph_spec {{ {spec} }} }} }}")
    with pytest.raises(InvalidArgumentError, match=f"graph_spec of model 'm' .*{reason}"):
        graph_shapes(asked, SIGNATURE, PROFILE)


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 2)), max_size=5),
    st.integers(1, 8),
    st.integers(1, 2),
)
def test_the_smallest_graph_that_may_serve_does(specs: list[tuple[int, int, int]], rows: int, width: int) -> None:
    ordered = [(max(a, b), min(a, b), each) for a, b, each in specs]
    captured = [(GraphShapes({"x": (high, each), "y": (high,)}, low), (high, low, each)) for high, low, each in ordered]
    found = GraphTable(captured).find({"x": (rows, width), "y": (rows,)})
    able = [name for _, name in captured if name[2] == width and name[1] <= rows <= name[0]]
    assert (found is None) == (not able)
    if found is not None:
        assert found in able
        assert found[0] == min(name[0] for name in able)
