"""Where telemetry goes: options, OpenTelemetry's variables, and which of them counts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from trivet.errors import InvalidArgumentError
from trivet.options import Settings
from trivet.trace_settings import TraceOptions, trace_options
from trivet_exporter_opentelemetry.options import OPTIONS, Batching, ExportSettings, Target


def settings(*config: str, environment: dict[str, str] | None = None, **options: Any) -> ExportSettings:
    trace = trace_options(["mode=opentelemetry", *config])
    return ExportSettings.of(Settings.of(OPTIONS, **options), trace, environment or {})


def test_nothing_is_sent_unless_asked_for() -> None:
    found = ExportSettings.of(Settings.of(OPTIONS), TraceOptions(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert (found.traces, found.metrics, found.logs) == (None, None, None)


def test_what_is_not_asked_for_is_not_imported() -> None:
    code = """
import asyncio, sys, tempfile
from trivet.plugins import PluginRegistry
from trivet.testing import running_server
with running_server(tempfile.mkdtemp()):
    pass
assert "trivet_exporter_opentelemetry.service" in sys.modules
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_defaults_are_tritons() -> None:
    found = settings()
    assert found.traces == Target("http://localhost:4318/v1/traces")
    assert found.shown == {
        "url": "http://localhost:4318/v1/traces",
        "bsp_max_export_batch_size": "512",
        "bsp_schedule_delay": "5000",
        "bsp_max_queue_size": "2048",
    }


def test_options_go_before_variables() -> None:
    found = settings(
        *("opentelemetry,url=localhost:1/a", "opentelemetry,resource=service.name=mine", "opentelemetry,resource=a=b"),
        "opentelemetry,bsp_max_queue_size=9",
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere",
            "OTEL_EXPORTER_OTLP_HEADERS": "key=a%20b, other=1",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SERVICE_NAME": "theirs",
            "OTEL_RESOURCE_ATTRIBUTES": "a=c,d=e",
            "OTEL_BSP_MAX_QUEUE_SIZE": "3",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        },
    )
    assert found.traces == Target("http://localhost:1/a", {"key": "a b", "other": "1"}, 3.0, True)
    assert found.batching == Batching(9, 0.5, 4)
    assert found.resource == {"service.name": "mine", "a": "b", "d": "e"}


def test_a_variable_for_all_signals_is_completed_by_the_path() -> None:
    found = settings(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"})
    assert found.traces is not None
    assert found.traces.url == "http://collector:4318/v1/traces"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("opentelemetry,foo=1", "there is no setting 'foo'; there are url, resource"),
        ("opentelemetry,resource=x", "expected resource=KEY=VALUE"),
        ("opentelemetry,url=ftp://x", "expected http://HOST:PORT/PATH"),
        ("opentelemetry,url=http://:80", "expected http://HOST:PORT/PATH"),
        ("opentelemetry,url=http://x:y", "expected http://HOST:PORT/PATH"),
        ("opentelemetry,bsp_schedule_delay=0", "expected a number, 1 or more"),
        ("opentelemetry,bsp_max_queue_size=x", "expected a number, 1 or more"),
        ("opentelemetry,bsp_max_queue_size=3", "expected no more than bsp_max_queue_size, 3"),
    ],
)
def test_what_is_malformed_is_quoted(config: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        settings(config)
    assert problem in str(raised.value)


def test_other_options_that_are_malformed() -> None:
    with pytest.raises(InvalidArgumentError, match="is no URL to send metrics to"):
        settings(otel_metrics_url="://")
    with pytest.raises(InvalidArgumentError, match="interval-ms=0: expected at least 1"):
        settings(otel_metrics_interval_ms=0)
    with pytest.raises(InvalidArgumentError, match="TIMEOUT=x: expected a number of seconds"):
        settings(environment={"OTEL_EXPORTER_OTLP_TIMEOUT": "x"})
