"""The trace extension over gRPC. Source: Triton's trace extension, "GRPC"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.engine import Engine
from trivet.errors import InvalidArgumentError
from trivet.tracing import Field

from trivet_protocol_kserve_v2.codec.trace_settings import (
    NUMBERS,
    check_model,
    describe,
    parse_level,
    parse_number,
    refuse_file,
)
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb


class TraceMethods:
    """The one method of the extension."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def trace_setting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """The settings, after those of the request are taken over; one without a value is taken back."""
        check_model(self._engine, request.model_name)
        tracing = self._engine.tracing
        if request.settings:
            tracing.update(request.model_name, _changes({key: each.value for key, each in request.settings.items()}))
        response = pb.TraceSettingResponse()
        for key, texts in describe(tracing, request.model_name).items():
            response.settings[key].value.extend(texts)
        return response


def _changes(settings: Mapping[str, Any]) -> dict[Field, Any]:
    refuse_file(settings)
    changes: dict[Field, Any] = {}
    if "trace_level" in settings:
        level = settings["trace_level"]
        changes["level"] = parse_level(list(level)) if level else None
    for name, field in NUMBERS.items():
        if name in settings:
            texts = settings[name]
            if len(texts) > 1:
                raise InvalidArgumentError(f"expect only 1 value for '{name}'")
            changes[field] = parse_number(name, texts[0]) if texts else None
    return changes
