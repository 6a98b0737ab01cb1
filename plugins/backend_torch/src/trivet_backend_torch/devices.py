"""Where an instance computes: how inputs get there, and how results come back.

On a GPU an instance has a stream of its own, which is the current one on its thread. Copies from the host are staged in
pinned memory and do not wait; tensors that are on a GPU already come in by DLPack, which orders the streams. What waits
before the answer waits for this stream alone, never for the device.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from trivet.backend import InstanceContext
from trivet.datatypes import BF16, DataType
from trivet.errors import UnavailableError
from trivet.memory import PinnedMemory
from trivet.tensor import Tensor

from trivet_backend_torch.runtime import torch
from trivet_backend_torch.staging import Staging
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
    """The server's, where it has any."""


class Host:
    """The CPU, or the devices that a model of ``KIND_MODEL`` chose itself."""

    def __init__(self, device: Any = None) -> None:
        self.device = device
        self.batch_memory: PinnedMemory | None = None
        """Where batches for it are best put together; ``None`` for ordinary memory."""

    def feed(self, tensor: Tensor) -> Any:
        """A tensor for the network."""
        return host_tensor(tensor)

    def fetch(self, results: dict[str, Any], datatypes: dict[str, DataType], copied: frozenset[int]) -> dict[str, Any]:
        """Results as host arrays; those in the network's ``own_memory`` are copied."""
        fetched: dict[str, Any] = {}
        for name, value in results.items():
            given = value
            if isinstance(value, torch.Tensor):
                if value.device.type != "cpu":
                    given = value.cpu()
                elif copied and value.untyped_storage().data_ptr() in copied:
                    given = value.clone()
            fetched[name] = host_array(given, datatypes[name], name)
        return fetched

    def close(self) -> None:
        """Give back what the device holds for this instance."""
        return


class Cuda(Host):
    """One GPU. Made on the instance's thread, whose current device and stream it sets."""

    def __init__(self, index: int, use: DeviceUse) -> None:
        super().__init__(torch.device("cuda", index))
        self._use = use
        self.reused: set[int] = set()
        """Where CUDA graphs leave their results: the next run writes over it."""
        torch.cuda.set_device(index)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self.stream)
        # On the GPU's own context, which is the current one from here on.
        self._staging = Staging(use.pinned_memory, pins_inputs=use.pinned_inputs, pins_outputs=use.pinned_outputs)
        self.batch_memory = self._staging.batch_memory

    def feed(self, tensor: Tensor) -> Any:
        """On this GPU: by DLPack where it is on a GPU, else through pinned memory, without waiting."""
        if tensor.on_device:
            given = torch.utils.dlpack.from_dlpack(tensor.dlpack()).reshape(tensor.shape)
            if tensor.datatype is BF16 and given.dtype is not torch.bfloat16:
                given = given.view(torch.bfloat16)
            # No copy where it is on this GPU already: a network that works in place writes into it.
            return given.to(self.device, non_blocking=True)
        return self._staging.outgoing(tensor.numpy(), tensor.datatype).to(self.device, non_blocking=True)

    def fetch(self, results: dict[str, Any], datatypes: dict[str, DataType], copied: frozenset[int]) -> dict[str, Any]:
        """Results as pinned host arrays, or left on the GPU; all complete, since other threads read them."""
        fetched: dict[str, Any] = {}
        staged: dict[str, Any] = {}
        copied = copied | self.reused
        try:
            for name, value in results.items():
                if not isinstance(value, torch.Tensor) or value.device.type == "cpu":
                    fetched[name] = host_array(value, datatypes[name], name)
                elif self._use.keep_outputs:
                    kept = value.detach()
                    fetched[name] = kept.clone() if kept.untyped_storage().data_ptr() in copied else kept.contiguous()
                else:
                    staged[name] = self._staging.incoming(value)
                    staged[name].copy_(value.detach(), non_blocking=True)
        finally:
            # Also after a failure: what is still being copied to must not be given to another.
            self.stream.synchronize()
            self._staging.landed()
        fetched |= {name: host_array(value, datatypes[name], name) for name, value in staged.items()}
        if self._use.clean_cache:
            torch.cuda.empty_cache()
        return fetched

    def close(self) -> None:
        """Give cached memory back to the device."""
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


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
