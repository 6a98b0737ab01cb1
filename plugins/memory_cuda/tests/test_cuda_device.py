"""Memory that another process has exported, on a real GPU."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from cuda.bindings import runtime
from cuda_peer import NEEDS_GPU, SIZE, Peer
from trivet.datatypes import BYTES, FP32, UINT8
from trivet.errors import InvalidArgumentError
from trivet.memory import PoolUsage
from trivet.options import Settings
from trivet.tensor import Tensor, object_array
from trivet_memory_cuda.options import OPTIONS
from trivet_memory_cuda.provider import CudaMemory
from trivet_memory_cuda.runtime import Cuda

pytestmark = NEEDS_GPU


@pytest.fixture
def peer() -> Iterator[Peer]:
    client = Peer()
    yield client
    client.close()


@pytest.fixture
def memory() -> CudaMemory:
    return CudaMemory(Settings.of(OPTIONS))


def register(memory: CudaMemory, peer: Peer, name: str = "r", byte_size: int = SIZE) -> None:
    memory.register(name, byte_size, {"raw_handle": peer.handle, "device_id": 0})


def floats(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def test_the_host_reads_what_the_client_put_there_and_the_client_what_the_host_wrote(
    memory: CudaMemory, peer: Peer
) -> None:
    peer.write(floats(1, 2, 3, 4))
    register(memory, peer)
    tensor = memory.slice("r", 4, 8).tensor("x", FP32, (2,))
    assert tensor.on_device
    assert tensor.numpy().tolist() == [2, 3]
    assert memory.slice("r", 1024, 8).write(Tensor.from_numpy("y", np.array([5, 6], np.float32))) == 8
    assert peer.read(8, 1024) == floats(5, 6)


def test_elements_across_their_alignment_are_read(memory: CudaMemory, peer: Peer) -> None:
    peer.write(floats(1, 2), offset=3)
    register(memory, peer)
    assert memory.slice("r", 3, 8).tensor("x", FP32, (2,)).numpy().tolist() == [1, 2]


def test_elements_across_their_alignment_are_read_by_a_framework(memory: CudaMemory, peer: Peer) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    peer.write(floats(1, 2), offset=3)
    register(memory, peer)
    tensor = memory.slice("r", 3, 8).tensor("x", FP32, (2,))
    given = torch.from_dlpack(tensor.dlpack())
    assert given.is_cuda
    assert given.mul(2).tolist() == [2, 4]
    assert memory.pools()[-1] == PoolUsage("cuda", 0, 64 << 20, 256)


def test_pinned_memory_is_pinned_and_copied_from(memory: CudaMemory) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    array = memory.pinned.take(4 << 20).view(np.float32)
    array[:] = 3
    staged = torch.from_numpy(array)
    assert staged.is_pinned()
    moved = staged.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert (moved == 3).all()
    assert memory.pools()[0] == PoolUsage("pinned", 0, 256 << 20, 4 << 20)


def test_text(memory: CudaMemory, peer: Peer) -> None:
    register(memory, peer)
    assert memory.slice("r", 5, 16).write(Tensor.from_numpy("y", object_array([b"ab", b"c"], (2,)))) == 11
    assert memory.slice("r", 5, 11).tensor("x", BYTES, (2,)).numpy().tolist() == [b"ab", b"c"]
    assert peer.read(11, 5) == b"\2\0\0\0ab\1\0\0\0c"


def test_a_framework_computes_on_it_and_into_it(memory: CudaMemory, peer: Peer) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    peer.write(floats(1, 2, 3, 4))
    register(memory, peer)
    given = torch.from_dlpack(memory.slice("r", 0, 16).tensor("x", FP32, (4,)).dlpack())
    assert given.is_cuda
    place = torch.from_dlpack(memory.slice("r", 512, 16).tensor("y", FP32, (4,)).dlpack())
    torch.mul(given, 2, out=place)
    torch.cuda.synchronize()
    assert peer.read(16, 512) == floats(2, 4, 6, 8)


def test_an_output_on_the_device_goes_there_directly(memory: CudaMemory, peer: Peer) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    register(memory, peer)
    with torch.cuda.stream(torch.cuda.Stream()):
        # Long enough that a copy that did not wait for it would be seen.
        slow = torch.ones((4096, 4096), device="cuda")
        for _ in range(20):
            slow = slow @ slow / 4096
        output = Tensor.from_dlpack("y", slow[0, :1000], FP32, (1000,))
        assert memory.slice("r", 0, 4000).write(output) == 4000
    assert output.on_device  # nobody has read it to the host
    assert peer.read(4000) == floats(*[1] * 1000)
    scattered = Tensor.from_dlpack("y", torch.arange(12.0, device="cuda").reshape(3, 4).T, FP32, (4, 3))
    assert memory.slice("r", 0, 48).write(scattered) == 48
    assert peer.read(12) == floats(0, 4, 8)


def test_what_several_requests_have_there_is_put_together_there(memory: CudaMemory, peer: Peer) -> None:
    peer.write(floats(1, 2, 3, 4))
    register(memory, peer)
    parts = [memory.slice("r", offset, 8).tensor("x", FP32, (1, 2)) for offset in (8, 0)]
    joined = memory.gpu.joined(parts, (2, 2))
    assert joined is not None
    assert joined.address % 256 == 0
    batch = Tensor.from_dlpack("x", joined, FP32, (2, 2))
    assert batch.on_device
    assert batch.numpy().tolist() == [[3, 4], [1, 2]]
    rows = batch.rows_on_device([1, 1])
    assert rows is not None
    for number, part in enumerate(rows):
        assert memory.slice("r", 1024 + 8 * number, 8).write(part) == 8
    assert peer.read(16, 1024) == floats(3, 4, 1, 2)


def test_a_region_does_not_reach_beyond_its_memory(memory: CudaMemory, peer: Peer) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the memory has {SIZE} bytes, expected at least {SIZE + 1}"):
        register(memory, peer, byte_size=SIZE + 1)
    register(memory, peer)


def test_a_handle_that_is_none_is_refused_and_costs_nothing(memory: CudaMemory, peer: Peer) -> None:
    for nonsense in (bytes(64), bytes(range(64)), peer.handle[:32] + bytes(32)):
        with pytest.raises(InvalidArgumentError, match="failed to open CUDA IPC handle"):
            memory.register("r", 8, {"raw_handle": nonsense, "device_id": 0})
    peer.write(floats(1))
    register(memory, peer)
    assert memory.slice("r", 0, 4).tensor("x", FP32, (1,)).numpy() == [1]


def test_a_handle_of_this_process_is_refused_with_the_reason(memory: CudaMemory) -> None:
    error, address = runtime.cudaMalloc(256)
    assert not error
    error, handle = runtime.cudaIpcGetMemHandle(address)
    assert not error
    details = {"raw_handle": ctypes.string_at(handle.getPtr(), 64), "device_id": 0}
    with pytest.raises(InvalidArgumentError, match="CUDA opens no handle in the process that made it"):
        memory.register("r", 256, details)
    assert runtime.cudaFree(address) == (runtime.cudaError_t.cudaSuccess,)


def test_a_client_frees_its_memory_and_makes_more_of_it_again_and_again(memory: CudaMemory, peer: Peer) -> None:
    for number in range(20):
        peer.write(floats(number))
        register(memory, peer)
        assert memory.slice("r", 0, 4).tensor("x", FP32, (1,)).numpy() == [number]
        memory.unregister("r")
        peer.anew()


def test_one_memory_under_two_names(memory: CudaMemory, peer: Peer) -> None:
    peer.write(floats(1, 2))
    register(memory, peer, "a")
    register(memory, peer, "b")
    memory.unregister("a")
    assert memory.slice("b", 4, 4).tensor("x", FP32, (1,)).numpy() == [2]
    memory.unregister("b")
    register(memory, peer, "a")
    assert memory.slice("a", 4, 4).tensor("x", FP32, (1,)).numpy() == [2]


def test_what_a_request_was_given_stays_when_the_region_is_forgotten(memory: CudaMemory, peer: Peer) -> None:
    peer.write(floats(1, 2))
    register(memory, peer)
    part = memory.slice("r", 0, 8)
    tensor = part.tensor("x", FP32, (2,))
    memory.unregister("r")
    assert tensor.numpy().tolist() == [1, 2]
    part.write(Tensor.from_numpy("y", np.array([3, 4], np.float32)))
    assert peer.read(8) == floats(3, 4)


def test_nothing_stays_mapped_of_what_is_forgotten(memory: CudaMemory, peer: Peer) -> None:
    register(memory, peer)
    address = memory._regions["r"][1].address
    memory.unregister("r")
    closed = threading.Event()
    assert memory._cuda is not None
    memory._cuda._closing.put(closed.set)
    assert closed.wait(10)
    target, to_host = np.empty(1, np.uint8).ctypes.data, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert runtime.cudaMemcpy(target, address, 1, to_host) == (runtime.cudaError_t.cudaErrorInvalidValue,)
    # The next caller is not told of it.
    runtime.cudaGetLastError()


def test_forgetting_a_region_does_not_wait_for_the_device(memory: CudaMemory, peer: Peer) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    peer.write(floats(1, 2))
    register(memory, peer)
    given = torch.from_dlpack(memory.slice("r", 0, 8).tensor("x", FP32, (2,)).dlpack())
    given * 2  # loading the kernel would wait for the device
    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    torch.cuda._sleep(1 << 30)
    done = torch.cuda.Event()
    doubled = given * 2
    done.record()
    del given
    memory.unregister("r")
    assert not done.query()
    assert doubled.tolist() == [2, 4]


def test_a_client_that_dies_leaves_a_region_that_anyone_may_forget(memory: CudaMemory, peer: Peer) -> None:
    peer.write(floats(7))
    register(memory, peer)
    peer.process.kill()
    assert peer.process.wait() == -signal.SIGKILL
    # The memory is there as long as anybody has mapped it.
    assert memory.slice("r", 0, 4).tensor("x", FP32, (1,)).numpy() == [7]
    memory.slice("r", 0, 4).write(Tensor.from_numpy("y", np.ones(1, np.float32)))
    memory.unregister("r")
    successor = Peer()
    successor.write(floats(9))
    register(memory, successor)
    assert memory.slice("r", 0, 4).tensor("x", FP32, (1,)).numpy() == [9]
    successor.close()


def test_the_threads_device_is_as_it_was(memory: CudaMemory, peer: Peer) -> None:
    _, before = runtime.cudaGetDevice()
    register(memory, peer)
    memory.slice("r", 0, 1).write(Tensor.from_numpy("y", np.ones(1, np.uint8)))
    assert memory.slice("r", 0, 1).tensor("x", UINT8, (1,)).numpy() == [1]
    assert runtime.cudaGetDevice()[1] == before
    assert Cuda().device_count == runtime.cudaGetDeviceCount()[1]
