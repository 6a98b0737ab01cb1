"""Tensors of the kernel into what a network takes, and what it gives back.

Numbers pass as views where their memory may be written to. A message of gRPC may not: a network that works in place
would change it under whoever else reads it, so it is copied once. bfloat16, which numpy lacks, travels as its bit
patterns. Text is a list of ``str``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BYTES, DataType
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, object_array

from trivet_backend_torch.runtime import torch
from trivet_backend_torch.signature import Kind

_CASTS: dict[Kind, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "str": str}


def host_tensor(tensor: Tensor) -> Any:
    """A ``torch.Tensor`` on the host, which the network may write to."""
    array = tensor.writable()
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    made = torch.from_numpy(array)
    return made.view(torch.bfloat16) if tensor.datatype is BF16 else made


def text_list(tensor: Tensor) -> list[str]:
    """All elements of a BYTES tensor, in order. Raises :class:`~trivet.errors.InvalidArgumentError` for no UTF-8."""
    texts = []
    for index, item in enumerate(tensor.numpy().reshape(-1).tolist()):
        try:
            texts.append(item.decode() if isinstance(item, bytes) else str(item))
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"element {index} of input '{tensor.name}' is not valid UTF-8 (byte 0x{item[error.start]:02x} at offset"
                f" {error.start}), which PyTorch needs of text"
            ) from None
    return texts


def scalar(tensor: Tensor, kind: Kind, row: int = 0, rows: int = 1) -> Any:
    """The Python value of one of ``rows``.

    Raises :class:`~trivet.errors.InvalidArgumentError` where rows have not just one, and for a value that is none of
    the kind.
    """
    items = text_list(tensor) if tensor.datatype is BYTES else tensor.numpy().reshape(-1).tolist()
    if len(items) != rows:
        raise InvalidArgumentError(
            f"input '{tensor.name}' has shape {list(tensor.shape)}, expected one {kind} for each element of the batch"
        )
    try:
        return _CASTS[kind](items[row])
    except (ValueError, OverflowError) as error:  # nan, infinity, and text that is no number
        raise InvalidArgumentError(
            f"input '{tensor.name}' is {items[row]!r}, expected a value for {kind}: {error}"
        ) from None


def host_array(value: Any, datatype: DataType, name: str) -> NDArray[Any]:
    """A result as an array: a view of a tensor on the host, text encoded, Python numbers as one element.

    Raises :class:`~trivet.errors.InternalError` for any other value, and a Python number that ``datatype`` cannot hold.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype is torch.bfloat16:
            # int16 first: numpy takes it from every version of PyTorch.
            patterns: NDArray[Any] = value.contiguous().view(torch.int16).numpy().view(np.uint16)
            return patterns
        array: NDArray[Any] = value.resolve_conj().resolve_neg().numpy()
        return array
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(item, (str, bytes)) for item in value):
        encoded = [item.encode() if isinstance(item, str) else item for item in value]
        return object_array(encoded, (len(encoded),))
    if isinstance(value, (bool, int, float)):
        # numpy would cut a fraction off, and has no bfloat16.
        if datatype is BF16 or (isinstance(value, float) and datatype.numpy.kind != "f"):
            raise InternalError(f"output '{name}' is the Python number {value}, which is not made {datatype}")
        return np.array([value], dtype=datatype.numpy)
    raise InternalError(
        f"output '{name}' must be a tensor, a list of str or a number, and the network gave a {type(value).__name__}"
    )
