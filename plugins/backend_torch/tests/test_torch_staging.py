"""What is copied to a GPU and back passes through the server's pinned memory, which ordinary memory stands for here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from host_arena import HostArena
from numpy.typing import NDArray
from trivet.datatypes import BF16, FP32, from_numpy
from trivet.errors import InternalError, ResourceExhaustedError
from trivet.tensor import Tensor
from trivet_backend_torch.devices import Host
from trivet_backend_torch.instance import TorchInstance
from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import execute_failure
from trivet_backend_torch.settings import Settings
from trivet_backend_torch.signature import Argument, Signature
from trivet_backend_torch.staging import Staging


@pytest.fixture
def arena() -> HostArena:
    return HostArena()


@pytest.fixture
def staging(arena: HostArena) -> Staging:
    made = Staging(arena, pins_inputs=True, pins_outputs=True)
    assert arena.taken  # before the first request
    arena.taken = 0
    return made


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(3, 2).T,
        np.array([[True], [False]]),
        np.array(7, np.float16),
        np.zeros((0, 3), np.float64),
        np.frombuffer(bytes(range(8)), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_inputs_of_any_kind_are_copied_into_pinned_memory(
    staging: Staging, arena: HostArena, array: NDArray[Any]
) -> None:
    staged = staging.outgoing(array, from_numpy(array.dtype))
    assert staged.shape == array.shape
    assert staged.tolist() == array.tolist()
    assert not array.size or arena.holds(staged.numpy())


def test_bfloat16_is_staged_as_its_bit_patterns(staging: Staging, arena: HostArena) -> None:
    staged = staging.outgoing(np.array([0x3F80, 0x4000], np.uint16), BF16)
    assert staged.dtype is torch.bfloat16
    assert staged.tolist() == [1, 2]
    assert arena.taken == 256


def test_a_batch_that_is_in_pinned_memory_is_not_copied(staging: Staging, arena: HostArena) -> None:
    assert staging.batch_memory is arena
    batch = arena.take(16).view(np.float32)
    staged = staging.outgoing(batch, FP32)
    assert staged.data_ptr() == batch.ctypes.data
    assert arena.taken == 256


def test_another_models_output_in_pinned_memory_is_copied(staging: Staging, arena: HostArena) -> None:
    output = arena.take(16).view(np.float32)
    output[:] = 3
    output.flags.writeable = False
    staged = staging.outgoing(output, FP32)
    assert staged.data_ptr() != output.ctypes.data
    assert staged.tolist() == [3] * 4


def test_memory_is_kept_until_the_copies_are_over(staging: Staging) -> None:
    staging.outgoing(np.zeros(3, np.float32), FP32)
    assert len(staging._in_flight) == 1
    staging.landed()
    assert not staging._in_flight


def test_results_come_into_pinned_memory(staging: Staging, arena: HostArena) -> None:
    for value in (torch.ones(2, 3), torch.ones(()), torch.zeros(2, dtype=torch.bool), torch.ones(3).bfloat16()):
        place = staging.incoming(value)
        assert (place.shape, place.dtype) == (value.shape, value.dtype)
        place.copy_(value)
        assert arena.memory.ctypes.data <= place.data_ptr() < arena.memory.ctypes.data + arena.memory.nbytes


def test_a_model_that_wants_no_pinned_memory_takes_none(arena: HostArena) -> None:
    staging = Staging(arena, pins_inputs=False, pins_outputs=False)
    assert staging.batch_memory is None
    assert staging.outgoing(np.ones(3, np.float32), FP32).tolist() == [1, 1, 1]
    assert staging.incoming(torch.ones(3)).shape == (3,)
    assert not arena.taken


def test_a_run_that_fails_is_waited_for_before_its_inputs_are_let_go_of(staging: Staging, context: Any) -> None:
    class Gpu(Host):
        """The host, through pinned memory."""

        def feed(self, tensor: Tensor) -> Any:
            return staging.outgoing(tensor.numpy(), tensor.datatype)

        def settle(self) -> None:
            staging.landed()

    def forward(x: Any) -> Any:
        assert staging._in_flight
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    config = """input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }"""
    network = Network(forward, Signature((Argument("x", "tensor"),), outputs=("y",)))
    made = TorchInstance(context({}, config), Settings(), network, Gpu())
    try:
        with pytest.raises(InternalError, match="PyTorch execute failure: CUDA error: an illegal memory access"):
            made.execute({"x": Tensor.from_numpy("x", np.ones(3, np.float32))}, ["y"])
        assert not staging._in_flight
    finally:
        made.close()


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_memory_that_cuda_itself_lacks_is_said_to_be_exhausted(text: str) -> None:
    assert isinstance(execute_failure(RuntimeError(text), "'m' version 1"), ResourceExhaustedError)
