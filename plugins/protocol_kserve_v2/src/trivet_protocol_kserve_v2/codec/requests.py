"""What requests have in common, whichever wire format they come in."""

from __future__ import annotations

import numpy as np
from trivet.datatypes import DataType

INVALID = DataType("<invalid>", "TYPE_INVALID", 0, 0, np.dtype(np.uint8))
"""Stands for a datatype name that does not exist, so that validation can say which one was expected."""


def label(request_id: str = "") -> str:
    """How Triton begins a message about one request."""
    return f"[request id: {request_id or '<id_unknown>'}]"
