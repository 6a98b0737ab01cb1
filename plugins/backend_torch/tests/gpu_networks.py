"""Networks on a GPU, run as the engine would: on a thread that is the instance's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trivet.backend import ArrayInstance
from trivet.tensor import Tensor

NEEDS_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

Instance = Callable[..., ArrayInstance]

CONFIG = """max_batch_size: 32
input {{ name: "INPUT__0" data_type: TYPE_{0} dims: [ 64 ] }}
output {{ name: "OUTPUT__0" data_type: TYPE_{0} dims: [ 32 ] }}
"""
ON_DEVICE = 'parameters { key: "OUTPUTS_ON_DEVICE" value { string_value: "true" } }'
GRAPHS = "optimization { cuda { graphs: true } }"


def save(network: torch.nn.Module) -> Callable[[Path], None]:
    return lambda path: torch.jit.trace(network.eval(), torch.zeros(2, 64)).save(str(path))


def run(made: ArrayInstance, x: Tensor) -> Any:
    return made.execute({"INPUT__0": x}, ["OUTPUT__0"])["OUTPUT__0"]


def on_a_thread(function: Callable[[], Any]) -> Any:
    """As instances are run: the current stream is a thread's."""
    result: list[Any] = []

    def target() -> None:
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised below
            result.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
