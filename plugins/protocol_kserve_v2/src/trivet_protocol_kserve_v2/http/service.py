"""The protocol over HTTP as a service: its endpoints on the listener ``http``, and what stands in front of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from trivet.errors import TrivetError, UnavailableError
from trivet.http import Handler, HandlerResult, HttpRequest, HttpResponse, Route
from trivet.service import Protocol, ServerContext

from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.extensions import announce
from trivet_protocol_kserve_v2.http import log_settings, shared_memory
from trivet_protocol_kserve_v2.http.control import Control
from trivet_protocol_kserve_v2.http.cors import Cors
from trivet_protocol_kserve_v2.http.endpoints import ENDPOINTS
from trivet_protocol_kserve_v2.http.forwarding import HeaderForwarding
from trivet_protocol_kserve_v2.http.generate import GenerateHandlers
from trivet_protocol_kserve_v2.http.infer import InferenceHandler
from trivet_protocol_kserve_v2.http.openapi import OPERATIONS, document
from trivet_protocol_kserve_v2.http.refusals import report_refused
from trivet_protocol_kserve_v2.http.responses import (
    error_response,
    forbidden,
    json_response,
    method_not_allowed,
    not_found,
)
from trivet_protocol_kserve_v2.http.restricted import Restriction, parse_restrictions
from trivet_protocol_kserve_v2.http.trace_settings import TraceSettingsHandler


def create(context: ServerContext) -> HttpService:
    """The factory that the plugin offers."""
    return HttpService(context)


class HttpService(Protocol):
    """Mounts the protocol when it is made; the transport that serves the listener does the rest."""

    def __init__(self, context: ServerContext) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is malformed."""
        settings = context.settings
        if not settings["allow_http"]:
            return
        announce(context.engine, context.memory)
        handlers = _handlers(context)
        restrictions = parse_restrictions(settings["http_restricted_api"])
        routes = [
            Route(
                endpoint.method,
                endpoint.path,
                _guard(
                    handlers[endpoint.operation],
                    restrictions.get(endpoint.api),
                    partial(report_refused, context.engine) if endpoint.api == "inference" else None,
                ),
                OPERATIONS[endpoint.operation].summary,
            )
            for endpoint in ENDPOINTS
        ]
        cors = Cors(settings["http_cors_allow_origin"])
        if cors.enabled:
            routes = [Route(r.method, r.path, cors.wrap(r.handler), r.summary) for r in routes]
            routes += cors.preflight_routes(routes)
        listener = context.listener("http")
        listener.routes += routes
        if listener.not_found is None:
            listener.not_found = _not_found

    async def start(self) -> None:
        """Nothing is left to do: the transport opens the listener."""

    async def stop(self, grace_s: float) -> None:
        """Nothing is left to do: the transport closes the listener."""


def _handlers(context: ServerContext) -> Mapping[str, Handler]:
    """What answers each operation."""
    settings = context.settings
    control = Control(context.engine)
    forwarding = HeaderForwarding(settings["http_header_forward_pattern"])
    memory = SharedMemory(context.memory)
    infer = InferenceHandler(
        context.engine,
        memory,
        forwarding,
        max_decompressed_size=settings["http_max_decompressed_size"],
    )
    generate = GenerateHandlers(context.engine, forwarding)
    trace_settings = TraceSettingsHandler(context.engine)
    openapi = json_response(document())
    return {
        "server_metadata": control.server_metadata,
        "server_live": control.server_live,
        "server_ready": control.server_ready,
        "model_metadata": control.model_metadata,
        "model_ready": control.model_ready,
        "model_config": control.model_config,
        "statistics": control.statistics,
        "infer": infer,
        "repository_index": control.repository_index,
        "load": control.load,
        "unload": control.unload,
        "openapi": lambda _: openapi,
        "generate": generate.one,
        "generate_stream": generate.stream,
        **shared_memory.handlers(memory),
        "trace_setting": trace_settings,
        "change_trace_setting": trace_settings,
        "log_settings": log_settings.handle,
    }


def _guard(
    handler: Handler, restriction: Restriction | None, report: Callable[[HttpRequest, TrivetError], None] | None
) -> Handler:
    """Answers a handler's errors, and refuses requests without the header that ``restriction`` asks for.

    ``report``, where there is one, hears of those.
    """

    def handle(request: HttpRequest) -> HandlerResult:
        if restriction is not None and not restriction.allows(request):
            if report is not None:
                report(request, UnavailableError(restriction.message))
            return forbidden(restriction.message)
        try:
            result = handler(request)
        except TrivetError as error:
            return error_response(error)
        return result if result is None or isinstance(result, HttpResponse) else _guard_later(result)

    return handle


async def _guard_later(result: Awaitable[HttpResponse]) -> HttpResponse:
    try:
        return await result
    except TrivetError as error:
        return error_response(error)


def _not_found(_: Any, allowed: Sequence[str]) -> HttpResponse:
    return method_not_allowed(allowed) if allowed else not_found()
