"""Inference requests over HTTP, and the errors that they are answered with."""

from __future__ import annotations

import json
from typing import Any

import httpx

INFER = "/v2/models/double/infer"
HEADER_LENGTH = "inference-header-content-length"


def double(**fields: Any) -> dict[str, Any]:
    """A request to the model of that name."""
    return {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "data": [1.5] * 16}], **fields}


def error(response: httpx.Response) -> tuple[int, str]:
    """Its status and message."""
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()["error"]


def binary(document: Any, *parts: bytes) -> dict[str, Any]:
    """Arguments of a POST with binary tensor data."""
    header = json.dumps(document).encode()
    return {"content": header + b"".join(parts), "headers": {HEADER_LENGTH: str(len(header))}}
