"""Configurations that are not those of an exported program, which tells all of its tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor

Instance = Callable[..., ArrayInstance]

CONFIG = """max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 2 ] }
"""


class Halves(torch.nn.Module):
    """The sum of each half of a row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 2, 2).sum(dim=2)


def save(*, any_batch: bool = True) -> Callable[[Path], None]:
    shapes = {"x": {0: torch.export.Dim("batch")} if any_batch else None}
    return lambda path: torch.export.save(
        torch.export.export(Halves(), (torch.zeros(2, 4),), dynamic_shapes=shapes), path
    )


def halves(made: ArrayInstance) -> Any:
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    return made.execute({"x": Tensor.from_numpy("x", x)}, ["OUTPUT__0"])["OUTPUT__0"].tolist()


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("FP32 dims: [ 4", "INT32 dims: [ 4", r"datatype TYPE_INT32 for input 'x', model provides TYPE_FP32$"),
        ("FP32 dims: [ 2", "INT64 dims: [ 2", r"datatype TYPE_INT64 for output 'OUTPUT__0', model provides TYPE_FP32$"),
        ("[ 4 ]", "[ 5 ]", r"'x': the model expects shape \[-1,4\] .* specifies \[8,5\], of which the first is max"),
        ("[ 2 ]", "[ 2, 1 ]", r"'OUTPUT__0': the model expects shape \[-1,2\] .* specifies \[8,2,1\]"),
    ],
)
def test_a_tensor_that_the_program_does_not_have(
    right: str, wrong: str, reason: str, context: Any, instance: Instance
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        instance(context({"model.pt2": save()}, CONFIG.replace(right, wrong)))


def test_sizes_may_be_left_open(context: Any, instance: Instance) -> None:
    config = CONFIG.replace("[ 4 ]", "[ -1 ]").replace("[ 2 ]", "[ -1 ]")
    assert halves(instance(context({"model.pt2": save()}, config))) == [[3, 7], [11, 15]]


def test_a_program_for_batches_of_one_size(context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'x': the model expects shape \[2,4\] .* specifies \[8,4\]"):
        instance(context({"model.pt2": save(any_batch=False)}, CONFIG))
    made = instance(context({}, CONFIG.replace("max_batch_size: 8", "max_batch_size: 2")))
    assert halves(made) == [[3, 7], [11, 15]]
