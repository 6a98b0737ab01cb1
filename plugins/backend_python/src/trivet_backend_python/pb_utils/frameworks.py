"""What a model gives by DLPack, as an object that any consumer can read, on any thread and more than once.

Two things need help. A bare capsule can be consumed once, and does not say on which stream its elements are computed. A
tensor of PyTorch on a GPU is exported only where its GPU is the thread's current one, is not waited for unless the
consumer names its stream, and cannot be copied to the host on the way before PyTorch 2.9.

Source: the Python array API standard 2023.12, ``__dlpack__``; ``torch.Tensor.__dlpack__``.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from trivet.dlpack import CUDA, OnGpu
from trivet.tensor import SupportsDLPack


def readable(tensor: Any) -> SupportsDLPack:
    """A framework's tensor, or another object with DLPack, by which it is read from here on."""
    torch = _imported("torch")
    if torch is not None and isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda":
        return OnGpu(tensor, tuple(tensor.shape), current=partial(torch.cuda.device, tensor.device), to_host=tensor.cpu)
    unchanged: SupportsDLPack = tensor
    return unchanged


def adopted(capsule: Any, device: tuple[int, int]) -> SupportsDLPack:
    """A bare capsule as such an object. What is on a GPU is taken over by PyTorch or CuPy, where the model has one."""
    bare = _Capsule(capsule, device)
    if device[0] == CUDA:
        if (torch := _imported("torch")) is not None and torch.cuda.is_available():
            return readable(torch.from_dlpack(bare))
        if (cupy := _imported("cupy")) is not None:
            return readable(cupy.from_dlpack(bare))
    return bare


def _imported(name: str) -> Any:
    """A module that somebody has imported, to its end; another model may be at it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


class _Capsule:
    """What ``from_dlpack`` functions take, around a capsule that one of them can consume."""

    __slots__ = ("_capsule", "_device")

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self._capsule = capsule
        self._device = device

    def __dlpack__(self, *, stream: Any = None, dl_device: tuple[int, int] | None = None, **_: Any) -> Any:
        if dl_device is not None and tuple(dl_device) != self._device:
            raise BufferError(
                "a bare DLPack capsule of GPU memory is copied to the host by PyTorch or CuPy, and neither is imported;"
                " give the framework's tensor instead, or an array on the host"
            )
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device
