"""The trace extension over HTTP. Source: Triton's trace extension, "HTTP/REST"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.engine import Engine
from trivet.errors import InternalError
from trivet.http import HttpRequest, HttpResponse
from trivet.tracing import Field

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_types import NOT_ARRAY, NOT_STRING
from trivet_protocol_kserve_v2.codec.trace_settings import (
    NUMBERS,
    check_model,
    describe,
    parse_level,
    parse_number,
    refuse_file,
)
from trivet_protocol_kserve_v2.http.responses import json_response


class TraceSettingsHandler:
    """Answers ``v2/trace/setting`` and ``v2/models/NAME/trace/setting``, on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The settings, after those of a POST are taken over; ``null`` takes one back. Raises for what is malformed."""
        model = request.params.get("model", "")
        check_model(self._engine, model)
        tracing = self._engine.tracing
        if request.method == "POST":
            document = read_json(request.body)
            tracing.update(model, _changes(document if type(document) is dict else {}))
        return json_response(
            {key: texts if key == "trace_level" else texts[0] for key, texts in describe(tracing, model).items()}
        )


def _changes(document: Mapping[str, Any]) -> dict[Field, Any]:
    refuse_file(document)
    changes: dict[Field, Any] = {}
    if "trace_level" in document:
        level = document["trace_level"]
        changes["level"] = None if level is None else parse_level(_texts(level))
    for name, field in NUMBERS.items():
        if name in document:
            value = document[name]
            changes[field] = None if value is None else parse_number(name, _text(value), before_got="")
    return changes


def _texts(value: object) -> list[str]:
    if type(value) is not list:
        raise InternalError(NOT_ARRAY)
    return [_text(each) for each in value]


def _text(value: object) -> str:
    if type(value) is not str:
        raise InternalError(NOT_STRING)
    return value
