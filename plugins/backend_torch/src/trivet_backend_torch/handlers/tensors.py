"""Rows of tensors as a handler takes them, and its answers as tensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from trivet.config import ModelConfig
from trivet.datatypes import BF16, BY_CONFIG_VALUE, BYTES, DataType
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor, object_array

from trivet_backend_torch.runtime import torch

_logger = logging.getLogger(__name__)


def outputs_of(config: ModelConfig) -> dict[str, tuple[DataType, tuple[int, ...]]]:
    """Datatype and dims of each output. Raises :class:`~trivet.errors.InvalidArgumentError` for TYPE_BF16."""
    outputs = {output.name: (BY_CONFIG_VALUE[output.data_type], tuple(output.dims)) for output in config.output}
    for name, (datatype, _) in outputs.items():
        if datatype is BF16:
            raise InvalidArgumentError(
                f"output '{name}' of model '{config.name}' is TYPE_BF16, which no handler can give"
            )
    return outputs


def rows_of(request: InferenceRequest, *, batches: bool, content_type: str) -> list[dict[str, Any]]:
    """A dictionary by input's name for each row of a request.

    A ``bytearray`` for one text, as TorchServe gives what was posted, a list of them for several, else an array. Text
    of ``content_type`` ``application/json`` is decoded, and ``text/...`` is ``str``; what cannot be stays as it is.
    """
    columns = {name: tensor.numpy() for name, tensor in request.inputs.items()}
    rows: Sequence[Any] = range(request.batch_size) if batches else (...,)
    return [
        {name: _element(column[row], request.inputs[name], content_type) for name, column in columns.items()}
        for row in rows
    ]


def _element(value: Any, tensor: Tensor, content_type: str) -> Any:
    if tensor.datatype is BYTES:
        items = [value] if isinstance(value, bytes) else value.reshape(-1).tolist()
        taken = [bytearray(item) if isinstance(item, bytes) else bytearray(str(item), "utf-8") for item in items]
        decoded = [_decoded(item, content_type) for item in taken]
        return decoded[0] if len(decoded) == 1 else decoded
    return np.array(value)  # a copy: the handler may write to it


def _decoded(item: bytearray, content_type: str) -> Any:
    try:
        if content_type == "application/json":
            return json.loads(item)
        if content_type.startswith("text"):
            return item.decode()
    except (ValueError, RecursionError) as error:
        _logger.debug("an input of content type %s is passed on as bytes: %s", content_type, error)
    return item


def output_tensor(name: str, datatype: DataType, dims: tuple[int, ...], parts: list[Any], *, batches: bool) -> Tensor:
    """One output from what each row's answer has for it.

    Raises :class:`TypeError`, :class:`ValueError` or :class:`OverflowError` where the datatype cannot hold it.
    """
    if datatype is BYTES:
        array = object_array([encoded(part) for part in parts], (len(parts),))
        shape = tuple(1 if dim < 0 else dim for dim in dims)
        return Tensor.from_numpy(name, array.reshape((len(parts), *shape) if batches else shape or (1,)), BYTES)
    arrays = [np.asarray(_plain(part), dtype=datatype.numpy) for part in parts]
    if len(dims) == 1 and arrays[0].ndim == 0:
        arrays = [array.reshape(1) for array in arrays]
    # Copied, as the handler may keep what it answered with.
    return Tensor.from_numpy(name, np.stack(arrays) if batches else arrays[0].copy(), datatype)


def encoded(value: Any) -> bytes:
    """An answer as text: bytes and text as they are, anything else as JSON. Raises :class:`TypeError` for no JSON."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, default=_to_json).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value


def _to_json(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, (np.ndarray, np.generic)):
        return plain.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
