"""Host memory on the way to the GPU and back: the server's pinned memory, where it has any, else ordinary memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.backend import ModelContext
from trivet.memory import PinnedMemory

from trivet_backend_trt.profiles import Sizes


class Staging:
    """What one instance copies from and to."""

    def __init__(self, context: ModelContext) -> None:
        """As ``optimization.input_pinned_memory`` and ``output_pinned_memory`` say, which are on unless set."""
        optimization, memory = context.config.optimization, context.pinned_memory
        pins_input = not optimization.HasField("input_pinned_memory") or optimization.input_pinned_memory.enable
        pins_output = not optimization.HasField("output_pinned_memory") or optimization.output_pinned_memory.enable
        self.inputs: PinnedMemory | None = memory if pins_input else None
        """Where batches are best put together too."""
        self._outputs: PinnedMemory | None = memory if pins_output else None

    def outgoing(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same elements where the GPU can copy them from, which must be kept until it has."""
        if self.inputs is None or not array.size or (array.flags.c_contiguous and self.inputs.holds(array)):
            return np.ascontiguousarray(array)
        staged = _take(self.inputs, array.dtype, array.shape)
        staged[...] = array
        return staged

    def incoming(self, dtype: np.dtype[Any], shape: Sizes) -> NDArray[Any]:
        """An array of any content that the GPU copies to, and that is the caller's for as long as it likes."""
        return np.empty(shape, dtype) if self._outputs is None else _take(self._outputs, dtype, shape)


def _take(memory: PinnedMemory, dtype: np.dtype[Any], shape: Sizes) -> NDArray[Any]:
    return memory.take(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize).view(dtype).reshape(shape)
