"""Host memory on the way to a GPU and back.

Where the server has a pool of pinned memory, it is taken from there, so that it is bounded and seen in the metrics;
else PyTorch's own allocator pins it, and keeps what it has pinned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, DataType
from trivet.memory import PinnedMemory

from trivet_backend_torch.runtime import torch


class Staging:
    """What one instance copies from and to. On the instance's thread."""

    def __init__(self, memory: PinnedMemory | None, *, pins_inputs: bool, pins_outputs: bool) -> None:
        """``memory`` is the server's, where it has any."""
        self._memory = memory
        self._pins_inputs = pins_inputs
        self._pins_outputs = pins_outputs
        self._in_flight: list[Any] = []
        if memory is not None and (pins_inputs or pins_outputs):
            memory.take(1)  # so that no request has to wait until it is pinned

    @property
    def batch_memory(self) -> PinnedMemory | None:
        """Where the kernel had better put batches together."""
        return self._memory if self._pins_inputs else None

    def outgoing(self, array: NDArray[Any], datatype: DataType) -> Any:
        """The elements as a tensor on the host, from which they may be copied until :meth:`landed`."""
        memory = self.batch_memory
        # One that may not be written to, such as another model's output, is copied: PyTorch knows no such tensors.
        if memory is not None and memory.holds(array) and array.flags.c_contiguous and array.flags.writeable:
            staged = torch.from_numpy(array)
        else:
            staged = self._host_memory(array.shape, _torch_dtype(array), pinned=self._pins_inputs)
            staged.numpy()[...] = array
        self._in_flight.append(staged)
        return staged.view(torch.bfloat16) if datatype is BF16 else staged

    def incoming(self, value: Any) -> Any:
        """A tensor on the host for the elements of ``value``, which is on a GPU."""
        return self._host_memory(value.shape, value.dtype, pinned=self._pins_outputs)

    def landed(self) -> None:
        """All copies are over: what was copied from may be used again."""
        self._in_flight.clear()

    def _host_memory(self, shape: Any, dtype: Any, *, pinned: bool) -> Any:
        if not pinned or self._memory is None:
            return torch.empty(shape, dtype=dtype, pin_memory=pinned)
        byte_size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return torch.from_numpy(self._memory.take(byte_size)).view(dtype).reshape(tuple(shape))


def _torch_dtype(array: NDArray[Any]) -> Any:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
