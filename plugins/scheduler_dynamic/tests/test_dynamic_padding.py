"""Requests whose inputs may be padded share a batch where their sizes are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from dynamic_batching import batches, finish, simulate
from hypothesis import given
from hypothesis import strategies as st
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet.testing import Simulation
from trivet_scheduler_dynamic.likeness import likeness, size_range

IDS = 'input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }'
MASK = 'input { name: "mask" data_type: TYPE_BOOL dims: [ -1 ] }'
OPTIONAL = 'input { name: "types" data_type: TYPE_INT64 dims: [ -1 ] optional: true }'
IMAGE = 'input { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }'


def padded(inputs: str, pad: str, max_batch_size: int = 8) -> Simulation:
    more = f'parameters {{ key: "dynamic_batching.pad" value {{ string_value: "{pad}" }} }}'
    return simulate(inputs=inputs, more=more, max_batch_size=max_batch_size)


def submit(simulation: Simulation, name: str, **shapes: Sequence[int]) -> None:
    tensors = {key: Tensor.from_numpy(key, np.zeros((1, *shape), np.int64)) for key, shape in shapes.items()}
    request = InferenceRequest("m", tensors, id=name)
    request.batch_size = 1
    assert simulation.submit(request) is None


def finish_all(simulation: Simulation) -> list[list[str]]:
    """The batches after the first, which went at once."""
    while simulation.instances[0].executing is not None:
        finish(simulation)
    return batches(simulation)[1:]


def test_requests_of_like_length_share_a_batch_and_others_do_not() -> None:
    simulation = padded(IDS, "ids=0")
    submit(simulation, "first", ids=[1])
    for name, length in (("a", 35), ("b", 62), ("c", 40), ("d", 33), ("e", 57), ("f", 41)):
        submit(simulation, name, ids=[length])
    assert finish_all(simulation) == [["a", "c", "d"], ["b", "e"], ["f"]]


def test_inputs_that_must_be_equally_long_are_not_made_so() -> None:
    """A mask of the wrong length is its sender's error, and nobody else's."""
    simulation = padded(IDS + MASK, "ids=0, mask=false")
    submit(simulation, "first", ids=[1], mask=[1])
    submit(simulation, "a", ids=[5], mask=[5])
    submit(simulation, "wrong", ids=[5], mask=[6])
    submit(simulation, "b", ids=[7], mask=[7])
    assert finish_all(simulation) == [["a", "b"], ["wrong"]]


def test_inputs_that_are_not_padded_must_be_equal() -> None:
    simulation = padded(IDS + MASK, "ids=0")
    submit(simulation, "first", ids=[1], mask=[1])
    for name, length in (("a", 2), ("b", 2), ("c", 3)):
        submit(simulation, name, ids=[4 + length], mask=[length])
    assert finish_all(simulation) == [["a", "b"], ["c"]]


def test_who_gives_an_optional_input_is_not_padded_for_who_does_not() -> None:
    simulation = padded(IDS + OPTIONAL, "ids=0, types=0", max_batch_size=8)
    submit(simulation, "first", ids=[1])
    submit(simulation, "a", ids=[3])
    submit(simulation, "b", ids=[3], types=[3])
    submit(simulation, "c", ids=[4])
    assert finish_all(simulation) == [["a", "c"], ["b"]]


def test_every_variable_axis_must_be_alike() -> None:
    simulation = padded(IMAGE, "image=255")
    submit(simulation, "first", image=[1, 1, 3])
    submit(simulation, "a", image=[100, 200, 3])
    submit(simulation, "b", image=[110, 210, 3])
    submit(simulation, "c", image=[110, 300, 3])
    assert finish_all(simulation) == [["a", "b"], ["c"]]


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40))
def test_padding_stays_below_a_quarter_or_eight_elements(one: int, other: int) -> None:
    small, large = sorted((one, other))
    if size_range(small) == size_range(large):
        assert large - small < max(8, small / 4)
    else:
        assert size_range(small) < size_range(large)


@given(st.integers(3, 40))
def test_a_power_of_two_ends_its_range(exponent: int) -> None:
    assert size_range(1 << exponent) == size_range((1 << exponent) - 1)
    assert size_range(1 << exponent) != size_range((1 << exponent) + 1)


def test_nothing_is_like_no_elements() -> None:
    assert size_range(0) != size_range(1)


@given(*[st.lists(st.integers(-1, 12), min_size=3, max_size=3).map(tuple)] * 2)
def test_alike_are_those_with_the_same_sizes_equal(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    if likeness(one) == likeness(other):
        pairs = [(first, second) for first in range(3) for second in range(first)]
        assert all((one[a] == one[b]) == (other[a] == other[b]) for a, b in pairs)
        assert list(map(size_range, one)) == list(map(size_range, other))
