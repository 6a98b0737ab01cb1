"""Trace settings as clients write and read them, in what HTTP and gRPC have in common.

Source: Triton's trace extension. Numbers are texts, read as C++'s ``std::stoi`` does: blanks before, anything behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trivet.engine import Engine
from trivet.errors import InvalidArgumentError, TrivetError, UnimplementedError
from trivet.trace_settings import LEVELS, OPENTELEMETRY
from trivet.tracing import Field, Tracing

_LEADING_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")
_INT32_MIN, _INT32_MAX, _UINT32_MAX = -(2**31), 2**31 - 1, 2**32 - 1
_RANGES = {
    "trace_rate": (0, _UINT32_MAX),
    "trace_count": (-1, _INT32_MAX),
    "log_frequency": (0, _UINT32_MAX),
}

NUMBERS: Mapping[str, Field] = {"trace_rate": "rate", "trace_count": "count", "log_frequency": "log_frequency"}
"""The settings that are numbers, and what the kernel calls them."""


def check_model(engine: Engine, name: str) -> None:
    """Raise :class:`~trivet.errors.InvalidArgumentError` for a model that is not ready; "" stands for all."""
    try:
        if name:
            engine.model(name)
    except TrivetError:
        raise InvalidArgumentError(f"Request for unknown model : {name}") from None


def refuse_file(settings: Mapping[str, object]) -> None:
    """Raise :class:`~trivet.errors.UnimplementedError` where a client wants to say what the server writes to."""
    if "trace_file" in settings:
        raise UnimplementedError("trace file location can not be updated through network protocol")


def parse_level(names: Sequence[str]) -> frozenset[str]:
    """The level that names make; those that are unknown are passed over, as in Triton.

    Raises :class:`~trivet.errors.InvalidArgumentError` for ``OFF`` beside others.
    """
    if "OFF" in names and len(names) > 1:
        raise InvalidArgumentError("Expect only one trace level 'OFF' is specified")
    return frozenset(names) & frozenset(LEVELS)


def parse_number(name: str, text: str, *, before_got: str = " ") -> int:
    """One of :data:`NUMBERS`. ``before_got``: what stands before the value where one message of Triton differs.

    Raises :class:`~trivet.errors.InvalidArgumentError` for text that does not begin with a number, or with one
    that is out of range.
    """
    match = _LEADING_INTEGER.match(text)
    if match is None:
        raise InvalidArgumentError(f"Unable to parse '{name}', got: {text}")
    least, most = _RANGES[name]
    value = int(match[1]) if len(match[1]) <= 20 else _UINT32_MAX
    if not _INT32_MIN <= value <= _INT32_MAX:
        raise InvalidArgumentError(f"Unable to parse '{name}', value is out of range [ {least}, {most} ], got: {text}")
    if name == "trace_count" and value < least:
        raise InvalidArgumentError(f"Unable to parse '{name}'. Expecting value >= -1, got:{before_got}{value}")
    # A negative number is what it is as an unsigned one.
    return value if name == "trace_count" else value & _UINT32_MAX


def describe(tracing: Tracing, model: str) -> dict[str, list[str]]:
    """The settings of a model, or with "" those of all, each as the texts that it has."""
    settings = tracing.settings(model)
    described = {
        "trace_level": [level for level in LEVELS if level in settings.level] or ["OFF"],
        "trace_rate": [str(settings.rate)],
        "trace_count": [str(settings.count)],
    }
    if tracing.mode != OPENTELEMETRY:
        described["log_frequency"] = [str(settings.log_frequency)]
        described["trace_file"] = [settings.file]
    described["trace_mode"] = [tracing.mode]
    if tracing.sink is not None:
        described |= {key: [text] for key, text in tracing.sink.shown.items()}
    return described
