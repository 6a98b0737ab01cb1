"""``ts.handler_utils.timer``: how long the steps of a handler take."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any


def timed(func: Callable[..., Any]) -> Callable[..., Any]:
    """Measure a method as ``ts_handler_NAME``, where ``model-config.yaml`` has ``handler: { profile: true }``."""

    @functools.wraps(func)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = getattr(self, "context", None)
        settings = None if context is None else context.model_yaml_config.get("handler")
        if context is None or not isinstance(settings, dict) or not settings.get("profile"):
            return func(self, *args, **kwargs)
        began = time.perf_counter()
        result = func(self, *args, **kwargs)
        context.metrics.add_time(f"ts_handler_{func.__name__}", (time.perf_counter() - began) * 1000)
        return result

    return measured
