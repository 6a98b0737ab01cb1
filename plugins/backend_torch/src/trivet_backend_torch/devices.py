"""Where an instance computes: how inputs get there, and how results come back.

On a GPU an instance has a stream of its own, which is the current one on its thread. Copies from the host are staged in
pinned memory and do not wait; tensors that are on a GPU already come in by DLPack, which orders the streams. What waits
before the answer waits for this stream, and for another GPU's where a result is there, never for the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from trivet.backend import InstanceContext
from trivet.datatypes import BF16, DataType
from trivet.dlpack import OnGpu
from trivet.errors import InternalError, UnavailableError
from trivet.memory import GpuMemory, PinnedMemory
from trivet.tensor import Tensor

from trivet_backend_torch.runtime import torch
from trivet_backend_torch.signature import DATATYPES
from trivet_backend_torch.staging import Staging
from trivet_backend_torch.streams import STREAMS
from trivet_backend_torch.values import host_array, host_tensor

_CUDA_INSTALL = (
    "install a torch with CUDA (pip install 'trivet-backend-torch[gpu]'), check the driver with nvidia-smi, or set"
    " instance_group { kind: KIND_CPU }"
)


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """How a GPU is used; the CPU knows no such choice."""

    keep_outputs: bool = False
    """Leave outputs on the GPU."""
    clean_cache: bool = False
    """Give cached memory back after each execution."""
    pinned_inputs: bool = True
    pinned_outputs: bool = True
    pinned_memory: PinnedMemory | None = None
    gpu_memory: GpuMemory | None = None
    """Both are the server's, where it has any."""


class Host:
    """The CPU, or the devices that a model of ``KIND_MODEL`` chose itself."""

    def __init__(self, device: Any = None) -> None:
        self.device = device
        self.batch_memory: PinnedMemory | None = None
        """Where batches for it are best put together; ``None`` for ordinary memory."""
        self.batch_gpu_memory: GpuMemory | None = None
        """The same for what is on a GPU already; ``None`` for the host."""

    def feed(self, tensor: Tensor) -> Any:
        """A tensor for the network."""
        return host_tensor(tensor)

    def fetch(
        self,
        results: dict[str, Any],
        datatypes: dict[str, DataType],
        held: Collection[str],
        placed: Collection[str] = (),
    ) -> dict[str, Any]:
        """Results as host arrays; those of ``held``, which the network still has, are copied.

        A GPU leaves those of ``placed``, which go into a caller's memory there, where they are.
        """
        fetched: dict[str, Any] = {}
        for name, value in results.items():
            given = value
            if isinstance(value, torch.Tensor):
                given = value.cpu() if value.device.type != "cpu" else _own(value, copy=name in held)
            fetched[name] = host_array(given, datatypes[name], name)
        return fetched

    def settle(self) -> None:
        """Wait for all that was begun: what it reads and writes may be used for something else from here on."""
        return

    def close(self) -> None:
        """Give back what the device holds for this instance."""
        return


class Cuda(Host):
    """One GPU. Made on the instance's thread, whose current device and stream it sets."""

    def __init__(self, index: int, use: DeviceUse) -> None:
        super().__init__(torch.device("cuda", index))
        self._use = use
        self._closed = False
        self.reused: set[int] = set()
        """Where CUDA graphs leave their results: the next run writes over it."""
        torch.cuda.set_device(index)
        self.stream = STREAMS.take(index)
        torch.cuda.set_stream(self.stream)
        # On the GPU's own context, which is the current one from here on.
        self._staging = Staging(use.pinned_memory, pins_inputs=use.pinned_inputs, pins_outputs=use.pinned_outputs)
        self.batch_memory = self._staging.batch_memory
        self.batch_gpu_memory = use.gpu_memory

    def feed(self, tensor: Tensor) -> Any:
        """On this GPU: by DLPack where it is on a GPU, else through pinned memory, without waiting."""
        if tensor.on_device:
            source = tensor.dlpack()
            # PyTorch exports, and is given, only what is on the thread's current GPU.
            with torch.cuda.device(source.__dlpack_device__()[1]):
                given = torch.utils.dlpack.from_dlpack(source).reshape(tensor.shape)
            if tensor.datatype is BF16 and given.dtype is not torch.bfloat16:
                given = given.view(torch.bfloat16)
            # No copy where it is on this GPU already: a network that works in place writes into it.
            return given.to(self.device, non_blocking=True)
        return self._staging.outgoing(tensor.numpy(), tensor.datatype).to(self.device, non_blocking=True)

    def fetch(
        self,
        results: dict[str, Any],
        datatypes: dict[str, DataType],
        held: Collection[str],
        placed: Collection[str] = (),
    ) -> dict[str, Any]:
        """Results as pinned host arrays, or left on the GPU; all complete, since other threads read them."""
        kept: dict[str, Any] = {}
        host: dict[str, Any] = {}
        try:
            for name, result in results.items():
                if not isinstance(result, torch.Tensor):
                    host[name] = result
                    continue
                value = result.detach()
                if value.device.type == "cpu":
                    host[name] = _own(value, copy=name in held)
                elif self._use.keep_outputs or name in placed:
                    copy = name in held or value.untyped_storage().data_ptr() in self.reused
                    kept[name] = _own(value, copy=copy).contiguous()
                else:
                    host[name] = self._staging.incoming(value)
                    # From another GPU the copy is on a stream of that one, which nobody waits for later.
                    host[name].copy_(value, non_blocking=value.device == self.device)
        finally:
            # Also after a failure: what is still being copied to must not be given to another.
            self.settle()
        for value in kept.values():
            if value.device != self.device:
                torch.cuda.current_stream(value.device).synchronize()
        fetched: dict[str, Any] = {name: host_array(value, datatypes[name], name) for name, value in host.items()}
        fetched.update((name, _on_gpu(value, datatypes[name], name)) for name, value in kept.items())
        if self._use.clean_cache:
            torch.cuda.empty_cache()
        return fetched

    def settle(self) -> None:
        self.stream.synchronize()
        self._staging.landed()

    def close(self) -> None:
        """Let others have the stream. Twice is once."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):
            self.settle()
        STREAMS.give_back(self.stream)


def _own(value: Any, *, copy: bool) -> Any:
    """The tensor, or a copy where the next run may write over its memory."""
    return value.clone(memory_format=torch.contiguous_format) if copy else value


def _on_gpu(value: Any, datatype: DataType, name: str) -> OnGpu:
    """A result that stays there; :class:`~trivet.errors.InternalError` where it is not of its output's type."""
    found = DATATYPES.get(value.dtype)
    if found is not datatype:
        raise InternalError(f"output '{name}' has datatype {found or value.dtype}, expected {datatype}")
    current = partial(torch.cuda.device, value.device)
    return OnGpu(value, tuple(value.shape), current=current, to_host=value.cpu, is_complete=True)


def open_device(context: InstanceContext, model: str, use: DeviceUse) -> Host:
    """The device of an instance, on its thread. Raises :class:`~trivet.errors.UnavailableError` where there is none."""
    if context.kind == "MODEL":
        return Host()
    if context.kind == "CPU":
        return Host(torch.device("cpu"))
    if torch.version.cuda is None or not torch.cuda.is_available():
        reason = "is built without CUDA" if torch.version.cuda is None else "finds no usable GPU"
        raise UnavailableError(f"model '{model}' needs a GPU, and torch {torch.__version__} {reason}; {_CUDA_INSTALL}")
    if context.device_id >= torch.cuda.device_count():
        raise UnavailableError(
            f"model '{model}' needs GPU {context.device_id}, and torch sees {torch.cuda.device_count()};"
            f" {_CUDA_INSTALL}"
        )
    return Cuda(context.device_id, use)
