"""The logging extension over HTTP. Source: Triton's logging extension, "HTTP/REST"."""

from __future__ import annotations

from typing import Any

from trivet.errors import InternalError, UnavailableError
from trivet.http import HttpRequest, HttpResponse

from trivet_protocol_kserve_v2.codec import log_settings
from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_types import NOT_BOOLEAN, NOT_STRING, NOT_UNSIGNED, UINT64_MAX
from trivet_protocol_kserve_v2.http.responses import json_response


def handle(request: HttpRequest) -> HttpResponse:
    """Show the settings; of a POST, after changing those that the body names. What it names beside them is ignored."""
    if request.method == "POST":
        document = read_json(request.body)
        fields: dict[str, Any] = document if type(document) is dict else {}
        log_settings.change({name: _checked(name, fields[name]) for name in log_settings.current() if name in fields})
    return json_response(log_settings.current())


def _checked(name: str, value: Any) -> log_settings.Setting:
    if name in log_settings.BOOLEANS:
        if type(value) is not bool:
            raise InternalError(NOT_BOOLEAN)
    elif name == "log_verbose_level":
        if type(value) is not int or not 0 <= value <= UINT64_MAX:
            raise InternalError(NOT_UNSIGNED)
    elif name == "log_format":
        if type(value) is not str:
            raise InternalError(NOT_STRING)
        if value not in log_settings.FORMATS:
            raise UnavailableError(f"invalid argument for --log_format, got: {value}")
    found: log_settings.Setting = value
    return found
