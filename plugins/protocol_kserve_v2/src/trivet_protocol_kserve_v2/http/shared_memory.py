"""The shared memory extensions over HTTP: registering, listing and forgetting regions.

Source: Triton's system shared memory and CUDA shared memory extensions, "HTTP/REST".
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from trivet.errors import InternalError, InvalidArgumentError
from trivet.http import Handler, HttpRequest, HttpResponse
from trivet.memory import RegionStatus

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_types import NOT_STRING, NOT_UNSIGNED, UINT64_MAX
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.http.responses import json_response

Fields = Mapping[str, Any]

_CUDA_HANDLE_SIZE = 64


def handlers(memory: SharedMemory) -> Mapping[str, Handler]:
    """What answers each operation of both extensions."""
    return {**_extension(memory, "system", _system_details), **_extension(memory, "cuda", _cuda_details)}


def _extension(memory: SharedMemory, kind: str, details: Callable[[Fields], dict[str, Any]]) -> Mapping[str, Handler]:
    """The three operations on one kind of memory. On the event loop."""

    def status(request: HttpRequest) -> HttpResponse:
        return json_response([_describe(region) for region in memory.status(kind, request.params.get("region", ""))])

    def register(request: HttpRequest) -> HttpResponse:
        name = request.params.get("region", "")
        if not name:
            raise InvalidArgumentError(f"'region name' is necessary to register {kind} shared memory region")
        document = read_json(request.body)
        fields = document if type(document) is dict else {}
        found = details(fields)
        memory.register(kind, name, _unsigned(_required(fields, "byte_size")), found)
        return HttpResponse(200)

    def unregister(request: HttpRequest) -> HttpResponse:
        memory.unregister(kind, request.params.get("region", ""))
        return HttpResponse(200)

    return {
        f"{kind}_shared_memory_status": status,
        f"{kind}_shared_memory_register": register,
        f"{kind}_shared_memory_unregister": unregister,
    }


def _describe(region: RegionStatus) -> dict[str, Any]:
    shown = {key: value for key, value in region.details.items() if key != "raw_handle"}
    return {"name": region.name, **shown, "byte_size": region.byte_size}


def _system_details(fields: Fields) -> dict[str, Any]:
    key = _required(fields, "key")
    if type(key) is not str:
        raise InternalError(NOT_STRING)
    return {"key": key, "offset": _unsigned(fields.get("offset", 0))}


def _cuda_details(fields: Fields) -> dict[str, Any]:
    handle = _required(fields, "raw_handle")
    encoded = _member(handle if type(handle) is dict else {}, "b64")
    if type(encoded) is not str:
        raise InternalError(NOT_STRING)
    _unsigned(_member(fields, "byte_size"))
    device = _unsigned(_member(fields, "device_id"))
    try:
        raw_handle = base64.b64decode(encoded, validate=True)
    except ValueError:
        raw_handle = b""
    if len(raw_handle) != _CUDA_HANDLE_SIZE:
        raise InvalidArgumentError("'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t")
    return {"raw_handle": raw_handle, "device_id": device}


def _member(fields: Fields, name: str) -> Any:
    if name not in fields:
        raise InternalError(f"attempt to access non-existing object member '{name}'")
    return fields[name]


def _required(fields: Fields, name: str) -> Any:
    if name not in fields:
        raise InvalidArgumentError(f"Shared memory register request has no '{name}' field")
    return fields[name]


def _unsigned(value: object) -> int:
    if type(value) is not int or not 0 <= value <= UINT64_MAX:
        raise InternalError(NOT_UNSIGNED)
    return value
