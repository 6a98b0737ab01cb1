"""Regions of CUDA memory on a machine with or without a GPU: what is refused, and when memory is let go of."""

from __future__ import annotations

import ctypes
import gc
import inspect
from typing import Any

import pytest
from cuda.bindings import driver, runtime
from cuda.bindings.utils import get_cuda_native_handle
from cuda_ledger import BASE, HANDLE, SIZE, Ledger, provider
from trivet.datatypes import FP16, FP32, DataType
from trivet.dlpack import DeviceMemory, describe
from trivet.errors import AlreadyExistsError, InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from trivet.memory import PoolUsage
from trivet.options import Settings
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet_memory_cuda import failures
from trivet_memory_cuda import runtime as cuda_runtime
from trivet_memory_cuda.failures import CudaError
from trivet_memory_cuda.options import OPTIONS
from trivet_memory_cuda.provider import HANDLE_SIZE, CudaMemory
from trivet_memory_cuda.runtime import Cuda


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def memory(ledger: Ledger) -> CudaMemory:
    return provider(ledger)


def register(memory: CudaMemory, name: str, byte_size: int = SIZE, device: int = 0, handle: bytes = HANDLE) -> None:
    memory.register(name, byte_size, {"raw_handle": handle, "device_id": device})


def test_the_package_offers_it() -> None:
    assert PluginRegistry.discover().memory_providers["cuda"].factory == "trivet_memory_cuda.provider:CudaMemory"


@pytest.mark.parametrize(
    "method", ["open", "close", "bytes_behind", "copy", "stream", "current", "allocate", "allocate_host"]
)
def test_the_ledger_takes_what_the_real_calls_take(method: str) -> None:
    assert inspect.signature(getattr(Ledger, method)) == inspect.signature(getattr(Cuda, method))


def test_the_bindings_have_what_is_called() -> None:
    # Without a driver each call fails, but not before its arguments are checked.
    assert HANDLE_SIZE == runtime.CUDA_IPC_HANDLE_SIZE
    handle = runtime.cudaIpcMemHandle_t()
    ctypes.memmove(handle.getPtr(), HANDLE, HANDLE_SIZE)
    assert ctypes.string_at(handle.getPtr(), HANDLE_SIZE) == HANDLE
    for function, parameters in {
        runtime.cudaIpcOpenMemHandle: ["handle", "flags"],
        runtime.cudaIpcCloseMemHandle: ["devPtr"],
        runtime.cudaMemcpyAsync: ["dst", "src", "count", "kind", "stream"],
        runtime.cudaStreamCreate: [],
        runtime.cudaStreamSynchronize: ["stream"],
        runtime.cudaStreamDestroy: ["stream"],
        runtime.cudaHostAlloc: ["size", "flags"],
        runtime.cudaFreeHost: ["ptr"],
        runtime.cudaMalloc: ["size"],
        runtime.cudaFree: ["devPtr"],
        runtime.cudaGetDevice: [],
        runtime.cudaSetDevice: ["device"],
        runtime.cudaGetLastError: [],
        driver.cuMemGetAddressRange: ["dptr"],
    }.items():
        assert list(inspect.signature(function).parameters) == parameters
    assert runtime.cudaIpcMemLazyEnablePeerAccess == 1
    assert runtime.cudaHostAllocPortable == 1
    assert int(runtime.cudaMemcpyKind.cudaMemcpyDefault) == 4
    assert get_cuda_native_handle(runtime.cudaStream_t(7)) == 7
    assert int(driver.CUdeviceptr(7)) == 7
    # An error has the same number on both sides, which is all that is known of it further up.
    for number in (failures.OUT_OF_MEMORY, failures.DEVICE_UNAVAILABLE, failures.ALREADY_MAPPED, *failures.LOST):
        assert int(runtime.cudaError_t(number)) == int(driver.CUresult(number)) == number
    assert runtime.cudaError_t(failures.WRONG_CONTEXT) == runtime.cudaError_t.cudaErrorDeviceUninitialized
    assert runtime.cudaError_t(failures.ALREADY_MAPPED) == runtime.cudaError_t.cudaErrorAlreadyMapped


class Runtime:
    """The bindings' runtime, but for what a test answers itself."""

    def __init__(self, **answers: Any) -> None:
        vars(self).update(cudaGetDeviceCount=lambda: (SUCCESS, 1), cudaGetDevice=lambda: (SUCCESS, 0), **answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(runtime, name)


SUCCESS, ALREADY_MAPPED = runtime.cudaError_t.cudaSuccess, runtime.cudaError_t.cudaErrorAlreadyMapped


def test_a_mapping_waits_for_one_at_its_place_that_nobody_uses_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that frees its memory and makes more of it gets the same address, which is still mapped here."""
    mapped = {BASE}

    def close(address: int) -> tuple[Any]:
        mapped.remove(address)
        return (SUCCESS,)

    def open_handle(handle: Any, flags: int) -> tuple[Any, int | None]:
        if BASE in mapped:
            return ALREADY_MAPPED, None
        mapped.add(BASE)
        return SUCCESS, BASE

    monkeypatch.setattr(cuda_runtime, "runtime", Runtime(cudaIpcOpenMemHandle=open_handle, cudaIpcCloseMemHandle=close))
    monkeypatch.setattr(cuda_runtime, "CLOSING_PATIENCE_S", 60)
    cuda = Cuda()
    cuda.close(BASE, 0)
    assert cuda.open(HANDLE, 0) == BASE
    with pytest.raises(CudaError, match=r"resource already mapped \(cudaErrorAlreadyMapped\); requests still use what"):
        cuda.open(HANDLE, 0)


def test_a_failure_is_not_left_for_the_next_who_asks_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries ask for the last error after each launch, and would take it for theirs."""
    asked: list[bool] = []
    wrong = runtime.cudaError_t.cudaErrorDeviceUninitialized
    answers = Runtime(
        cudaIpcOpenMemHandle=lambda handle, flags: (wrong, None), cudaGetLastError=lambda: asked.append(True)
    )
    monkeypatch.setattr(cuda_runtime, "runtime", answers)
    with pytest.raises(CudaError, match=r"invalid device context .* no handle in the process that made it"):
        Cuda().open(HANDLE, 0)
    assert asked == [True]


def test_without_a_gpu_registering_says_so_and_everything_else_works() -> None:
    error, count = runtime.cudaGetDeviceCount()
    if not error and count:
        pytest.skip("this machine has a CUDA device")
    memory = CudaMemory(Settings.of(OPTIONS))
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            register(memory, "r")
        assert caught.value.message.startswith(
            "failed to register shared memory region: this server has no CUDA device: "
        )
    assert not memory.regions()
    assert "r" not in memory
    memory.unregister("r")
    memory.unregister(None)
    with pytest.raises(NotFoundError, match=r"^Unable to find shared memory region: 'r'$"):
        memory.slice("r", 0, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"byte_size": 0}, "'byte_size' is 0, expected at least 1"),
        ({"byte_size": SIZE + 1}, "the memory has 4096 bytes, expected at least 4097"),
        ({"byte_size": 2**64 - 1}, "the memory has 4096 bytes"),
        ({"device": 2}, "there is no CUDA device 2; this server has 2, counted from 0"),
        ({"device": -1}, "there is no CUDA device -1"),
        ({"device": 2**63 - 1}, "there is no CUDA device 9223372036854775807"),
        ({"handle": b""}, "'raw_handle' has 0 bytes, expected the 64 of a cudaIpcMemHandle_t"),
        ({"handle": bytes(63)}, "'raw_handle' has 63 bytes"),
        ({"handle": bytes(65)}, "'raw_handle' has 65 bytes"),
        ({"handle": bytes(64)}, "failed to open CUDA IPC handle: invalid argument"),
    ],
)
def test_what_cannot_be_a_region_is_refused_and_nothing_stays_mapped(
    memory: CudaMemory, ledger: Ledger, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        register(memory, "r", **wrong)
    assert caught.value.message.startswith(f"failed to register shared memory region: {message}")
    assert "r" not in memory
    del caught
    gc.collect()
    assert not ledger.mapped.total()


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (1, InvalidArgumentError, "so it is"),
        (failures.OUT_OF_MEMORY, UnavailableError, "so it is"),
        (failures.ALREADY_MAPPED, UnavailableError, "so it is"),
        (700, InternalError, "so it is; CUDA's context is lost, and with it all work on this GPU until"),
    ],
)
def test_what_is_no_fault_of_the_clients_is_not_said_to_be(
    memory: CudaMemory, ledger: Ledger, number: int, kind: type[Exception], message: str
) -> None:
    ledger.refuses = number
    with pytest.raises(kind, match=f"^failed to register shared memory region: failed to open .*: {message}"):
        register(memory, "r")


def test_what_is_registered_is_listed_until_it_is_forgotten(memory: CudaMemory, ledger: Ledger) -> None:
    register(memory, "a", 16)
    register(memory, "b", SIZE, 1)
    with pytest.raises(AlreadyExistsError, match=r"^shared memory region 'a' already in manager$"):
        register(memory, "a")
    assert {name: (each.byte_size, dict(each.details)) for name, each in memory.regions().items()} == {
        "a": (16, {"device_id": 0}),
        "b": (SIZE, {"device_id": 1}),
    }
    memory.unregister("nobody")
    memory.unregister("a")
    assert "a" not in memory
    assert "b" in memory
    memory.unregister(None)
    assert not memory.regions()
    assert not ledger.mapped.total()


def test_a_handle_is_closed_as_often_as_it_was_opened(memory: CudaMemory, ledger: Ledger) -> None:
    for name in ("a", "b"):
        register(memory, name)
    assert ledger.mapped[HANDLE, 0] == 2
    memory.unregister("a")
    assert ledger.mapped[HANDLE, 0] == 1
    memory.slice("b", 0, 1)
    memory.unregister("b")
    assert ledger.mapped[HANDLE, 0] == 0


def test_what_a_request_was_given_stays_mapped_until_the_last_view_is_gone(memory: CudaMemory, ledger: Ledger) -> None:
    register(memory, "r")
    part = memory.slice("r", 8, 16)
    tensor = part.tensor("x", FP32, (4,))
    memory.unregister("r")
    capsule = tensor.dlpack().__dlpack__()
    del part, tensor
    gc.collect()
    assert ledger.mapped[HANDLE, 0] == 1
    del capsule
    gc.collect()
    assert ledger.mapped[HANDLE, 0] == 0


def test_a_part_lies_within_its_region(memory: CudaMemory) -> None:
    register(memory, "r", 50)
    for offset, size in ((50, 1), (2**64 - 1, 1)):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid offset for shared memory region: 'r'$"):
            memory.slice("r", offset, size)
    for offset, size in ((49, 2), (0, 51), (0, 0), (1, 2**64 - 1)):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid offset \+ byte size for shared memory region: 'r'$"):
            memory.slice("r", offset, size)


def test_a_tensor_is_where_the_client_put_it(memory: CudaMemory) -> None:
    register(memory, "r", device=1)
    tensor = memory.slice("r", 256, 16).tensor("x", FP32, (2, 2))
    assert tensor.on_device
    assert tensor.dlpack().__dlpack_device__() == (2, 1)
    assert tensor.dlpack().address == BASE + 256  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgumentError, match=r"^input 'x' has 16 bytes of data, expected 20 for FP32 of shape"):
        memory.slice("r", 0, 16).tensor("x", FP32, (5,))


def test_a_tensor_across_its_alignment_is_copied_on_the_device_when_somebody_reads_it(
    memory: CudaMemory, ledger: Ledger
) -> None:
    """A kernel that read it where it is would fail, and with it whatever else the process does on the GPU."""
    register(memory, "r", device=1)
    tensor = memory.slice("r", 257, 16).tensor("x", FP32, (2, 2))
    assert tensor.on_device
    assert not ledger.copies
    seen = [describe(tensor.dlpack().__dlpack__()) for _ in range(2)]
    ((target, source, byte_size, device),) = ledger.copies  # once, however many read it
    assert (source, byte_size, device) == (BASE + 257, 16, 1)
    assert [each.address for each in seen] == [target, target]
    assert target % 256 == 0
    assert [usage for usage in memory.pools() if usage.kind == "cuda"] == [PoolUsage("cuda", 1, 64 << 20, 256)]
    del tensor, seen
    gc.collect()
    assert memory.pools()[-1].used_bytes == 0


class OnGpu(DeviceMemory):
    """As PyTorch's tensors are: exported only where their GPU is the thread's current one, for a stream."""

    __slots__ = ("asked", "ledger")

    def __init__(self, ledger: Ledger, device: int, datatype: DataType, shape: tuple[int, ...]) -> None:
        super().__init__(None, BASE >> 1, (2, device), datatype, shape)
        self.ledger = ledger
        self.asked: list[tuple[int, int]] = []

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self.asked.append((self.ledger.on, stream))
        return super().__dlpack__(**options)


def test_an_output_is_copied_from_whatever_gpu_it_is_on(memory: CudaMemory, ledger: Ledger) -> None:
    register(memory, "r", device=1)
    output = OnGpu(ledger, 0, FP32, (2, 2))
    ledger.on = 1
    assert memory.slice("r", 16, 16).write(Tensor.from_dlpack("y", output, FP32, (2, 2))) == 16
    assert output.asked == [(0, 71)]
    assert ledger.copies == [(BASE + 16, BASE >> 1, 16, 1)]
    assert ledger.on == 1


def test_an_output_of_another_type_than_was_promised_is_not_copied(memory: CudaMemory, ledger: Ledger) -> None:
    register(memory, "r")
    halves = Tensor.from_dlpack("y", OnGpu(ledger, 0, FP16, (4,)), FP32, (4,))
    with pytest.raises(InternalError, match=r"^tensor 'y' has 8 bytes on GPU 0, expected 16 for FP32 of shape \[4\]$"):
        memory.slice("r", 0, 16).write(halves)
    assert not ledger.copies
