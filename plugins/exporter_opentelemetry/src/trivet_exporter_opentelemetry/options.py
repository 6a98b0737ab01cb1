"""Where telemetry goes: options, tritonserver's ``--trace-config opentelemetry,...``, and OpenTelemetry's variables.

Source: Triton's user guide, "OpenTelemetry trace support"; the OpenTelemetry specification, "OTLP exporter
configuration" and "Batch Span Processor".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from trivet.errors import InvalidArgumentError
from trivet.options import Option, Settings
from trivet.trace_settings import OPENTELEMETRY, TraceOptions

OPTIONS = (
    Option("otel-metrics-url", help="Send metrics by OTLP to this URL, e.g. http://localhost:4318/v1/metrics."),
    Option("otel-metrics-interval-ms", "integer", 60000, help="How often metrics are sent."),
    Option("otel-logs-url", help="Send the log by OTLP to this URL, e.g. http://localhost:4318/v1/logs."),
)

_TRACES_URL = "http://localhost:4318/v1/traces"
_NUMBERS = {"bsp_max_queue_size": "2048", "bsp_schedule_delay": "5000", "bsp_max_export_batch_size": "512"}
_VARIABLES = {key: f"OTEL_{key.upper()}" for key in _NUMBERS}


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal is sent."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    compressed: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """How many items wait, how long at most, and how many are sent together."""

    max_queue: int = 2048
    delay_s: float = 5.0
    max_batch: int = 512


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is sent, and where; ``None`` for what is not."""

    traces: Target | None = None
    metrics: Target | None = None
    logs: Target | None = None
    batching: Batching = Batching()
    metrics_interval_s: float = 60.0
    resource: Mapping[str, str] = field(default_factory=dict)
    """Attributes of what this server is."""

    @classmethod
    def of(cls, settings: Settings, trace: TraceOptions, environment: Mapping[str, str] = os.environ) -> ExportSettings:
        """Options go before variables. Raises :class:`~trivet.errors.InvalidArgumentError` for what is malformed."""
        given = trace.of_mode.get(OPENTELEMETRY, ())
        options, resource = _mode_options(given)
        interval_ms = settings["otel_metrics_interval_ms"]
        if interval_ms < 1:
            raise InvalidArgumentError(f"--otel-metrics-interval-ms={interval_ms}: expected at least 1")
        url = options.get("url") or _endpoint("TRACES", environment) or _TRACES_URL
        metrics, logs = settings["otel_metrics_url"], settings["otel_logs_url"]
        return cls(
            traces=_target("TRACES", url, environment) if trace.mode == OPENTELEMETRY else None,
            metrics=_target("METRICS", metrics, environment) if metrics else None,
            logs=_target("LOGS", logs, environment) if logs else None,
            batching=_batching(options, environment),
            metrics_interval_s=interval_ms / 1000,
            resource=_resource(resource, environment),
        )

    @property
    def shown(self) -> Mapping[str, str]:
        """As Triton's trace extension shows the settings of the mode."""
        return {
            "url": self.traces.url if self.traces is not None else "",
            "bsp_max_export_batch_size": str(self.batching.max_batch),
            "bsp_schedule_delay": f"{self.batching.delay_s * 1000:.0f}",
            "bsp_max_queue_size": str(self.batching.max_queue),
        }


def _mode_options(given: Sequence[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """``--trace-config opentelemetry,KEY=VALUE``: settings, and attributes of the resource."""
    options: dict[str, str] = {}
    resource: dict[str, str] = {}
    for key, value in given:
        if key == "resource":
            name, equals, text = value.partition("=")
            if not (equals and name):
                raise InvalidArgumentError(
                    f"--trace-config=opentelemetry,resource={value}: expected resource=KEY=VALUE"
                )
            resource[name] = text
        elif key == "url" or key in _NUMBERS:
            options[key] = value
        else:
            raise InvalidArgumentError(
                f"--trace-config=opentelemetry,{key}={value}: there is no setting '{key}'; there are url, resource,"
                f" {', '.join(_NUMBERS)}"
            )
    return options, resource


def _batching(options: Mapping[str, str], environment: Mapping[str, str]) -> Batching:
    numbers = {}
    for key, default in _NUMBERS.items():
        text = options.get(key) or environment.get(_VARIABLES[key]) or default
        if not text.isdecimal() or int(text) < 1:
            raise InvalidArgumentError(f"opentelemetry,{key}={text}: expected a number, 1 or more")
        numbers[key] = int(text)
    batching = Batching(
        numbers["bsp_max_queue_size"], numbers["bsp_schedule_delay"] / 1000, numbers["bsp_max_export_batch_size"]
    )
    if batching.max_batch > batching.max_queue:
        raise InvalidArgumentError(
            f"opentelemetry,bsp_max_export_batch_size={batching.max_batch}: expected no more than bsp_max_queue_size,"
            f" {batching.max_queue}"
        )
    return batching


def _endpoint(signal: str, environment: Mapping[str, str]) -> str | None:
    """The URL for a signal that OpenTelemetry's variables name."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if own:
        return own
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/{signal.lower()}" if base else None


def _target(signal: str, url: str, environment: Mapping[str, str]) -> Target:
    def variable(name: str, default: str = "") -> str:
        return environment.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", default
        )

    # Triton takes HOST:PORT too.
    address = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(address)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise InvalidArgumentError(f"'{url}' is no URL to send {signal.lower()} to: expected http://HOST:PORT/PATH")
    timeout = variable("TIMEOUT", "10")
    try:
        timeout_s = float(timeout)
    except ValueError:
        timeout_s = 0.0
    if not timeout_s > 0:
        raise InvalidArgumentError(f"OTEL_EXPORTER_OTLP_TIMEOUT={timeout}: expected a number of seconds")
    return Target(address, _pairs(variable("HEADERS")), timeout_s, variable("COMPRESSION") == "gzip")


def _resource(given: Mapping[str, str], environment: Mapping[str, str]) -> Mapping[str, str]:
    resource = {"service.name": "trivet", **_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))}
    if name := environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    return {**resource, **given}


def _pairs(text: str) -> dict[str, str]:
    """``a=1,b=2``, percent-encoded as in W3C's baggage."""
    divided = (pair.partition("=") for pair in text.split(","))
    return {unquote(key.strip()): unquote(value.strip()) for key, equals, value in divided if equals and key.strip()}
