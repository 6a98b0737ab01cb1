"""A line for each inference request (``--log-access``), whatever protocol it came by. On the event loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.errors import TrivetError
    from trivet.inference import InferenceRequest, InferenceResponse

logger = logging.getLogger(__name__)

_TRACE_ID = slice(3, 35)  # of a traceparent: two digits of version, a dash, 32 of the trace
_DIVIDING = frozenset(" ='\"")


def install(engine: Engine) -> None:
    """Log each request of ``engine`` from now on: when it is answered for the last time, or refused."""
    engine.on_finished.append(_finished)
    engine.on_refused.append(_refused)


def _finished(request: InferenceRequest, response: InferenceResponse) -> None:
    _log(request, response.error)


def _refused(request: InferenceRequest, error: TrivetError) -> None:
    _log(request, error)


def _log(request: InferenceRequest, error: TrivetError | None) -> None:
    """The figures are in the message for people, and fields of their own for machines (``--log-format=json``)."""
    fields: dict[str, Any] = {
        "model": request.model_name,
        "version": request.model_version if request.model is None else str(request.model.version),
        "request_id": request.id,
        "status": "ok" if error is None else error.code.value,
    }
    if request.answered_ns:
        fields["duration_us"] = (request.answered_ns - request.received_ns) // 1000
    if request.compute_start_ns:
        fields["queue_us"] = (request.compute_start_ns - request.queued_ns) // 1000
    if request.compute_end_ns:
        fields["compute_us"] = (request.compute_end_ns - request.compute_start_ns) // 1000
    if isinstance(request.trace_context, Mapping):
        fields["trace_id"] = str(request.trace_context.get("traceparent", ""))[_TRACE_ID]
    text = " ".join([f"{name}={_word(value)}" for name, value in fields.items() if value != ""])
    logger.info("%s", text if error is None else f"{text} error={error.message!r}", extra=fields)


def _word(value: object) -> str:
    """As it is, unless it could be taken for several fields: a request's id is whatever its caller wrote."""
    text = str(value)
    return text if text.isprintable() and not _DIVIDING.intersection(text) else repr(text)
