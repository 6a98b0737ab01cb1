"""Inference requests that never become one: what the engine does not see, its observers hear of all the same."""

from __future__ import annotations

from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.http import HttpRequest


def report_refused(engine: Engine, call: HttpRequest, error: TrivetError) -> None:
    """Tell that ``call``, whose path names a model, was refused before ``Engine.submit``. On the event loop."""
    engine.report_refused(call.params["model"], error, model_version=call.params.get("version", ""))
