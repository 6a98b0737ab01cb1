"""The log as OpenTelemetry's log records.

Source: the OpenTelemetry specification, "Logs data model"; its semantic conventions for exceptions and code.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from trivet.logs import extras_of

from trivet_exporter_opentelemetry.attributes import readable, text

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_OWN = __name__.rpartition(".")[0]

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.SEVERITY_NUMBER_FATAL),
    (logging.ERROR, SeverityNumber.SEVERITY_NUMBER_ERROR),
    (logging.WARNING, SeverityNumber.SEVERITY_NUMBER_WARN),
    (logging.INFO, SeverityNumber.SEVERITY_NUMBER_INFO),
)


class Line(NamedTuple):
    """What is kept of a record until it is sent."""

    time_ns: int
    level: int
    level_name: str
    logger: str
    message: str
    file: str
    line: int
    exception: tuple[str, str, str] | None
    """Type, message and traceback."""
    extras: Mapping[str, Any]
    """What the line says for machines, by name."""


class LogQueue(logging.Handler):
    """Hands the log's records on, but for those about the sending itself: they would make more of their kind."""

    def __init__(self, put: Callable[[Line], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_OWN):
            return
        try:
            self._put(_line(record))
        except Exception:  # noqa: BLE001 - logging's own way with a record that cannot be formatted
            self.handleError(record)


def _line(record: logging.LogRecord) -> Line:
    exception = None
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, _ = record.exc_info
        exception = (kind.__qualname__, str(error), "".join(traceback.format_exception(*record.exc_info)))
    return Line(
        int(record.created * 1e9),
        record.levelno,
        record.levelname,
        record.name,
        record.getMessage(),
        record.filename,
        record.lineno,
        exception,
        extras_of(record),
    )


class LogEncoder:
    """Turns lines into the protocol's message."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        self._resource = Resource(attributes=[text(key, value) for key, value in resource.items()])
        self._scope = InstrumentationScope(name="trivet", version=version)

    def encode(self, lines: Sequence[Line]) -> bytes:
        """An ``ExportLogsServiceRequest``."""
        scope = ScopeLogs(scope=self._scope, log_records=map(_record, lines))
        return ExportLogsServiceRequest(
            resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scope])]
        ).SerializeToString()


def _record(line: Line) -> LogRecord:
    severity = next(
        (number for level, number in _SEVERITIES if line.level >= level), SeverityNumber.SEVERITY_NUMBER_DEBUG
    )
    attributes = [
        text("logger.name", line.logger),
        text("code.file.path", line.file),
        KeyValue(key="code.line.number", value=AnyValue(int_value=line.line)),
    ]
    if line.exception is not None:
        names = ("exception.type", "exception.message", "exception.stacktrace")
        attributes += [text(name, value) for name, value in zip(names, line.exception, strict=True)]
    trace_id = str(line.extras.get("trace_id", ""))
    attributes += [_attribute(name, value) for name, value in line.extras.items() if name != "trace_id" and value != ""]
    return LogRecord(
        time_unix_nano=line.time_ns,
        observed_time_unix_nano=time.time_ns(),
        severity_number=severity,
        severity_text=line.level_name,
        body=AnyValue(string_value=readable(line.message)),
        attributes=attributes,
        trace_id=bytes.fromhex(trace_id) if _TRACE_ID.fullmatch(trace_id) else b"",
    )


def _attribute(key: str, value: Any) -> KeyValue:
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return text(key, str(value))
