"""Pools of pinned memory and of memory on GPUs, on a machine with or without a GPU."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cuda_ledger import HostCuda, Ledger, provider
from host_gpu import InHostMemory
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from numpy.typing import NDArray
from trivet.datatypes import FP32
from trivet.dlpack import CUDA, DeviceMemory
from trivet.errors import InternalError, InvalidArgumentError
from trivet.memory import PoolUsage
from trivet.options import Settings
from trivet.tensor import Tensor
from trivet.testing import running_server
from trivet_memory_cuda.failures import CudaError
from trivet_memory_cuda.options import OPTIONS
from trivet_memory_cuda.pool import ALIGNMENT, Blocks
from trivet_memory_cuda.provider import CudaMemory

POOL = 64 * ALIGNMENT


class TakingAndGivingBack(RuleBasedStateMachine):
    """Against a model that knows of each unit whether it is taken."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(POOL + 17)  # what is no whole unit is not given out
        self.units = [False] * (POOL // ALIGNMENT)

    @rule(target=taken, size=st.integers(1, POOL // 3))
    def take(self, size: int) -> tuple[int, int]:
        units = -(-size // ALIGNMENT)
        offset = self.blocks.take(size)
        gaps = "".join(".x"[unit] for unit in self.units).split("x")
        fitting = [len(gap) for gap in gaps if len(gap) >= units]
        if offset is None:
            assert not fitting
            return 0, 0
        first = offset // ALIGNMENT
        assert offset % ALIGNMENT == 0
        assert not any(self.units[first : first + units])
        before, after = gaps_around(self.units, first, units)
        assert before + units + after == min(fitting)  # large pieces stay whole
        self.units[first : first + units] = [True] * units
        return first, units

    @rule(block=consumes(taken))
    def give_back(self, block: tuple[int, int]) -> None:
        first, units = block
        if units:
            self.blocks.give_back(first * ALIGNMENT)
            self.units[first : first + units] = [False] * units
        else:
            with pytest.raises(KeyError):
                self.blocks.give_back(-1)

    @invariant()
    def the_sums_are_right(self) -> None:
        assert self.blocks.used == sum(self.units) * ALIGNMENT
        if not any(self.units):
            assert self.blocks._free == [(0, POOL)]


def gaps_around(units: list[bool], first: int, count: int) -> tuple[int, int]:
    """Free units that touch a piece, before and behind."""
    before, after = first, first + count
    while before > 0 and not units[before - 1]:
        before -= 1
    while after < len(units) and not units[after]:
        after += 1
    return first - before, after - first - count


TestBlocks = TakingAndGivingBack.TestCase


def test_pinned_memory_goes_back_with_its_last_view() -> None:
    ledger = Ledger()
    memory = provider(ledger, pinned_memory_pool_byte_size=POOL)
    assert memory.pools() == [PoolUsage("pinned", 0, POOL, 0)]
    assert not ledger.allocated[None]  # nobody has taken anything
    array = memory.pinned.take(1000)
    assert (array.dtype, array.shape) == (np.uint8, (1000,))
    assert memory.pinned.holds(array)
    assert memory.pinned.holds(array.view(np.float32)[3:])
    assert memory.pools() == [PoolUsage("pinned", 0, POOL, 1024)]
    view = array[500:].view(np.int16)
    del array
    assert memory.pools()[0].used_bytes == 1024
    del view
    assert memory.pools()[0].used_bytes == 0
    del memory
    gc.collect()
    assert not ledger.allocated[None]


def test_where_pinned_memory_is_used_up_ordinary_memory_serves_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = provider(Ledger(), pinned_memory_pool_byte_size=POOL)
    held = [memory.pinned.take(POOL // 2) for _ in range(4)]
    assert [memory.pinned.holds(each) for each in held] == [True, True, False, False]
    for number, each in enumerate(held):
        each[:] = number
    assert [int(each.max()) for each in held] == [0, 1, 2, 3]
    (record,) = caplog.records
    assert record.getMessage() == (
        "failed to allocate pinned system memory, falling back to non-pinned system memory: 16384 of 16384 bytes are"
        " taken, no room for 8192; give it more with --pinned-memory-pool-byte-size"
    )
    del held[0]
    assert memory.pinned.holds(memory.pinned.take(1))


def test_where_memory_cannot_be_pinned_ordinary_memory_serves(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.most = 100
    memory = provider(ledger)
    for _ in range(3):
        assert memory.pinned.take(10).size == 10
    assert ["out of memory" in record.getMessage() for record in caplog.records] == [True]
    assert memory.pools() == [PoolUsage("pinned", 0, 256 << 20, 0)]


def test_without_a_gpu_ordinary_memory_serves(caplog: pytest.LogCaptureFixture) -> None:
    memory = CudaMemory(Settings.of(OPTIONS))
    try:
        memory._devices()
    except Exception as error:  # noqa: BLE001 - the driver's reason
        reason = str(error)
    else:
        pytest.skip("this machine has a CUDA device")
    for _ in range(2):
        array = memory.pinned.take(10)
        assert not memory.pinned.holds(array)
        array[:] = 1
    (record,) = caplog.records
    assert record.getMessage().endswith(reason)
    assert memory.pools() == [PoolUsage("pinned", 0, 256 << 20, 0)]


def test_a_pool_that_nobody_wants_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    memory = provider(Ledger(), pinned_memory_pool_byte_size=0)
    assert not memory.pinned.holds(memory.pinned.take(10))
    assert not caplog.records


def test_nothing_is_taken_of_a_pool_for_no_bytes() -> None:
    memory = provider(Ledger(), pinned_memory_pool_byte_size=POOL)
    assert memory.pinned.take(0).size == 0
    assert memory.pools() == [PoolUsage("pinned", 0, POOL, 0)]


def test_many_threads_share_a_pool() -> None:
    memory = provider(Ledger(), pinned_memory_pool_byte_size=POOL)
    chance = np.random.default_rng(0)

    def work(number: int, sizes: list[int]) -> int:
        held = []
        for size in sizes:
            held.append(memory.pinned.take(size))
            held[-1][:] = number
            if len(held) > 3:
                assert (held.pop(0) == number).all()  # nobody else was given the same
        return len(sizes)

    with ThreadPoolExecutor(8) as threads:
        jobs = [chance.integers(0, 2000, 300).tolist() for _ in range(8)]
        assert list(threads.map(work, range(1, 9), jobs)) == [300] * 8
    assert memory.pools() == [PoolUsage("pinned", 0, POOL, 0)]


def test_memory_on_a_gpu_comes_from_its_pool_and_beyond_that_from_the_device() -> None:
    ledger = Ledger()
    memory = provider(ledger, cuda_memory_pool_byte_size=["1:4096", "0:0"])
    pools = memory._on_devices
    first = pools.take(4000, 1)
    assert ledger.allocated[1] == 4096
    second = pools.take(100, 1)
    assert ledger.allocated[1] == 4196
    assert pools.usage == [PoolUsage("cuda", 1, 4096, 4096)]
    del first, second
    assert pools.usage == [PoolUsage("cuda", 1, 4096, 0)]
    assert ledger.allocated[1] == 4096
    without_pool = pools.take(100, 0)
    assert ledger.allocated[0] == 100
    ledger.most = 0
    with pytest.raises(InternalError, match="out of memory"):
        pools.take(1 << 30, 1)
    del without_pool


def on_gpu(array: NDArray[Any], device: int = 0) -> Tensor:
    return Tensor.from_dlpack("x", InHostMemory(array, FP32, device), FP32, array.shape)


def test_tensors_on_a_gpu_are_put_together_in_its_pool() -> None:
    """As if the host's memory were a GPU's."""
    cuda = HostCuda()
    memory = provider(cuda)
    arrays = [np.full((rows, 3), rows, np.float32) for rows in (1, 2)]
    joined = memory.gpu.joined([on_gpu(array, 1) for array in arrays], (3, 3))
    assert joined is not None
    assert (joined.device, joined.shape, joined.address % ALIGNMENT) == ((CUDA, 1), (3, 3), 0)
    assert [copy[1:] for copy in cuda.copies] == [(each.ctypes.data, each.nbytes, 1) for each in arrays]
    assert memory.pools()[1:] == [PoolUsage("cuda", 1, 64 << 20, ALIGNMENT)]
    assert Tensor.from_dlpack("x", joined, FP32, (3, 3)).numpy().tolist() == [[1] * 3, [2] * 3, [2] * 3]
    capsule = joined.__dlpack__()
    del joined
    gc.collect()
    assert memory.pools()[1].used_bytes == ALIGNMENT
    del capsule
    gc.collect()
    assert memory.pools()[1].used_bytes == 0


def test_what_cannot_be_put_together_on_a_gpu_is_left_to_the_host() -> None:
    cuda = HostCuda()
    memory = provider(cuda, cuda_memory_pool_byte_size=["0:0"])
    array = np.ones((2, 2), np.float32)
    assert memory.gpu.joined([on_gpu(array), on_gpu(array, 1)], (4, 2)) is None
    assert memory.gpu.joined([on_gpu(array[:0])] * 2, (0, 2)) is None
    assert memory.gpu.joined([on_gpu(array), Tensor.from_dlpack("x", Columns(array), FP32, (2, 2))], (4, 2)) is None
    elsewhere = DeviceMemory(array, array.ctypes.data, (10, 0), FP32, (2, 2))  # kDLROCM
    assert memory.gpu.joined([Tensor.from_dlpack("x", elsewhere, FP32, (2, 2))] * 2, (4, 2)) is None
    cuda.most = 16
    assert memory.gpu.joined([on_gpu(array)] * 2, (4, 2)) is None
    assert not cuda.copies
    cuda.most = 1 << 20
    assert memory.gpu.joined([on_gpu(array)] * 2, (4, 2)) is not None


class Columns(InHostMemory):
    """Not row-major."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array, FP32)

    def __dlpack__(self, **_: Any) -> Any:
        return self.owner.T.__dlpack__()  # type: ignore[attr-defined]


def test_a_failure_to_copy_gives_the_memory_back() -> None:
    class Failing(HostCuda):
        def copy(self, target: int, parts: Sequence[tuple[int, int]], device: int) -> None:
            raise CudaError("failed to copy CUDA memory: so it is", 1)

    memory = provider(Failing())
    with pytest.raises(CudaError, match="so it is"):
        memory.gpu.joined([on_gpu(np.ones((2, 2), np.float32))] * 2, (4, 2))
    gc.collect()
    assert memory.pools()[1].used_bytes == 0


def test_a_gpu_without_room_for_a_pool_is_used_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.most = 1000
    block = provider(ledger)._on_devices.take(100, 0)
    assert ledger.allocated[0] == 100
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "there is no pool of memory on GPU 0" in caplog.text
    del block


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pinned_memory_pool_byte_size": -1}, "--pinned-memory-pool-byte-size=-1: expected at least 0"),
        ({"cuda_memory_pool_byte_size": ["100"]}, "--cuda-memory-pool-byte-size=100: expected GPU:BYTES"),
        ({"cuda_memory_pool_byte_size": ["a:1"]}, "--cuda-memory-pool-byte-size=a:1: expected GPU:BYTES"),
        ({"cuda_memory_pool_byte_size": ["0:-1"]}, "--cuda-memory-pool-byte-size=0:-1: expected GPU:BYTES"),
    ],
)
def test_a_size_that_is_none_is_refused_when_the_server_starts(
    settings: dict[str, object], message: str, tmp_path: object
) -> None:
    with pytest.raises(InvalidArgumentError, match=message), running_server(tmp_path, **settings):  # type: ignore[arg-type]
        pass
