"""What is traced: the settings of Triton's trace extension, and the options of ``trivet serve`` that set them at start.

Source: Triton's trace extension and its user guide, "Triton Server Trace".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trivet.errors import InvalidArgumentError

TRITON = "triton"
OPENTELEMETRY = "opentelemetry"

LEVELS = ("TIMESTAMPS", "TENSORS")
"""What can be traced of a request."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How the requests of one model, or of all that have no settings of their own, are traced."""

    level: frozenset[str] = frozenset()
    """Of :data:`LEVELS`; empty for ``OFF``."""
    rate: int = 1000
    """Every so many requests, one is traced; 0 for none but those whose caller traces them."""
    count: int = -1
    """How many more are traced; -1 for any number."""
    log_frequency: int = 0
    """How many traces make a file of their own, ``FILE.0`` and on; 0 for one file ``FILE``. Of mode ``triton``."""
    file: str = ""
    """Of mode ``triton``."""

    def problem(self, mode: str) -> str | None:
        """Why nothing would be traced though there is a level; ``None`` where something is."""
        if self.rate == 0:
            return "sample rate must be non-zero"
        if self.count == 0:
            return "trace count must not be zero"
        if mode == TRITON and not self.file:
            return "trace file name is not given"
        return None


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Tracing as it is when the server starts."""

    mode: str = TRITON
    """Who gets the traces: ``triton`` or ``opentelemetry``. It does not change while the server runs."""
    settings: TraceSettings = TraceSettings()
    of_mode: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """``--trace-config MODE,KEY=VALUE`` of the modes that plugins serve, in the order given."""


def trace_options(
    config: Sequence[str],
    *,
    file: str | None = None,
    levels: Sequence[str] = (),
    rate: int | None = None,
    count: int | None = None,
    log_frequency: int | None = None,
) -> TraceOptions:
    """The values of ``--trace-config``, and those of the older options, which count where ``config`` says nothing.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting what is malformed.
    """
    of_server: dict[str, list[str]] = {}
    of_mode: dict[str, list[tuple[str, str]]] = {}
    for value in config:
        mode, key, text = _divide(value)
        if mode == OPENTELEMETRY:
            of_mode.setdefault(mode, []).append((key, text))
        else:
            of_server.setdefault(key, []).append(text)
    if not of_server.get("level"):
        of_server["level"] = list(levels)
    older = {"file": file, "rate": rate, "count": count, "log-frequency": log_frequency}
    for key, given in older.items():
        if given is not None and key not in of_server:
            of_server[key] = [str(given)]
    # Where a setting is given twice the last counts, as for other options; levels add up.
    last = {key: texts[-1] for key, texts in of_server.items() if texts}
    mode = last.get("mode", TRITON)
    if mode not in (TRITON, OPENTELEMETRY):
        raise InvalidArgumentError(f"--trace-config mode={mode}: expected triton or opentelemetry")
    settings = TraceSettings(
        level=_level(of_server["level"]),
        rate=_number("rate", last.get("rate", "1000"), 0),
        count=_number("count", last.get("count", "-1"), -1),
        log_frequency=_number("log-frequency", last.get("log-frequency", "0"), 0),
        file=last.get("file", ""),
    )
    return TraceOptions(mode, settings, of_mode)


_KEYS = {"": ("level", "rate", "count", "mode"), TRITON: ("file", "log-frequency")}


def _divide(value: str) -> tuple[str, str, str]:
    """Mode ("" for none), key and value of one ``--trace-config``."""
    setting, equals, text = value.partition("=")
    mode, comma, key = setting.partition(",")
    if not comma:
        mode, key = "", mode
    if not (equals and key and text) or (comma and not mode):
        raise InvalidArgumentError(
            f"--trace-config={value}: expected KEY=VALUE or MODE,KEY=VALUE, e.g. rate=100 or triton,file=/tmp/trace"
        )
    if mode not in (*_KEYS, OPENTELEMETRY):
        raise InvalidArgumentError(f"--trace-config={value}: there is no mode '{mode}', only triton and opentelemetry")
    if mode in _KEYS and key not in _KEYS[mode]:
        raise InvalidArgumentError(
            f"--trace-config={value}: there is no setting '{key}'; there are level, rate, count and mode, and of mode"
            " triton (triton,KEY=VALUE) file and log-frequency"
        )
    return mode, key, text


def _level(names: Sequence[str]) -> frozenset[str]:
    # MIN and MAX are what tritonserver called them once.
    found = frozenset({"MIN": "TIMESTAMPS", "MAX": "TIMESTAMPS"}.get(name, name) for name in names) - {"OFF"}
    unknown = sorted(found - frozenset(LEVELS))
    if unknown:
        raise InvalidArgumentError(f"trace level '{unknown[0]}': expected OFF, TIMESTAMPS or TENSORS")
    return found


def _number(name: str, text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number < 2**31:
        raise InvalidArgumentError(f"trace {name} '{text}': expected a number, {least} or more")
    return number
