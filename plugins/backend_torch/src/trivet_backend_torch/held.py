"""Which results a network still has: in a parameter, a buffer, any other attribute, or the memory of another result.

The next run may write over those while this one's answer is being sent, so they are copied. How many refer to a tensor
tells, which costs less than looking through a network, and finds what is in lists and in C++ too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from trivet_backend_torch.runtime import torch

# Some builds without CUDA did not offer it; views of what a network keeps are not found then.
_uses_of_storage = getattr(torch._C, "_storage_Use_Count", lambda _: 0)


def held(results: Mapping[str, Any]) -> frozenset[str]:
    """The names of tensors that something beside ``results`` refers to, or to whose memory. Hold none in a variable."""
    return frozenset(name for name in results if _is_held(results, name))


def _is_held(results: Mapping[str, Any], name: str) -> bool:
    if not isinstance(results[name], torch.Tensor) or results[name].layout is not torch.strided:
        return False
    return any(count > alone for count, alone in zip(_references(results, name), _ALONE, strict=True))


def _references(results: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    """How many refer to the Python object, to the tensor in C++, and to its memory."""
    storage = results[name].untyped_storage()
    return (
        sys.getrefcount(results[name]),
        results[name]._use_count(),
        _uses_of_storage(storage._cdata),
    )


_ALONE = _references({"": torch.empty(1)}, "")
"""Measured, as what the interpreter and PyTorch add themselves differs between their versions."""
