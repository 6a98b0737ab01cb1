"""What a row of a batch brings a handler: text, bytes or numbers, under the names that TorchServe has for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trivet_backend_torch.runtime import describe, torch
from trivet_backend_torch.ts.utils.util import PredictionException


def posted(row: Any) -> Any:
    """What TorchServe's clients post as ``data`` or ``body``; of a row with one entry that, whatever its name.

    A row that is no dictionary is what was posted. Raises :class:`PredictionException` with status 400 for one that
    has neither.
    """
    if not isinstance(row, dict):
        return row
    for name in ("data", "body"):
        if row.get(name) is not None:
            return row[name]
    if len(row) == 1:
        return next(iter(row.values()))
    raise PredictionException(f"expected an input 'data' or 'body', and there is {', '.join(row) or 'none'}", 400)


def numbers(value: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An array, number or nested list as a tensor of its shape; text is JSON of these.

    Without ``dtype`` an array keeps its own, and numbers of Python are FP32 or INT64. Raises
    :class:`PredictionException` with status 400 for anything else.
    """
    try:
        if isinstance(value, (bytes, bytearray, str)):
            value = json.loads(value)
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PredictionException(f"expected numbers, or lists of numbers of one length: {describe(error)}", 400) from (
            error
        )


def batch(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows along a new first dimension. Raises :class:`PredictionException` with status 400 where shapes differ."""
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise PredictionException(
            f"expected rows of one shape, and they are {' and '.join(str(list(shape)) for shape in sorted(shapes))}",
            400,
        )
    return torch.stack(list(rows))
