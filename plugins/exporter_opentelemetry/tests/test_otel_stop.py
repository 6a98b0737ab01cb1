"""The end of a server: the last of traces, metrics and log go out, and hold it up for no longer than it has."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import anyio
import pytest
from otlp_collector import collecting, serving
from trivet.engine import Engine
from trivet.plugins import PluginRegistry
from trivet.testing import running_engine
from trivet_exporter_opentelemetry.exporter import OpenTelemetryExporter
from trivet_exporter_opentelemetry.options import ExportSettings, Target

pytestmark = pytest.mark.anyio

logger = logging.getLogger(__name__)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def log_of_this_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


def without_models(path: Path) -> Any:
    return running_engine(path, registry=PluginRegistry.of())


async def started(engine: Engine, url: str) -> OpenTelemetryExporter:
    """An exporter of metrics and the log, whose turn to send comes with its end."""
    exporter = OpenTelemetryExporter(
        engine, (), ExportSettings(metrics=Target(f"{url}/v1/metrics"), logs=Target(f"{url}/v1/logs"))
    )
    await exporter.start()
    return exporter


async def test_the_last_of_metrics_and_log_reach_the_collector(tmp_path: Path) -> None:
    async with without_models(tmp_path) as engine:
        with collecting() as collector:
            exporter = await started(engine, collector.url)
            logger.info("the last line")
            await exporter.stop(30)
            assert [record.body.string_value for record in collector.logs] == ["the last line"]
            assert "trivet_otlp_dropped" in {metric.name for metric in collector.metrics}
            logger.info("later")
            await exporter.stop(30)
            assert len(collector.logs) == 1


async def test_metrics_and_log_are_sent_side_by_side(tmp_path: Path) -> None:
    """A collector that answers the one only when it has the other: in turn, neither would be answered in time."""
    both = threading.Barrier(2, timeout=4)  # less than the first of two in turn would have
    answered: list[str] = []

    class Together(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            both.wait()
            answered.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    async with without_models(tmp_path) as engine:
        with serving(Together) as port:
            exporter = await started(engine, f"http://127.0.0.1:{port}")
            logger.info("the last line")
            await exporter.stop(30)
    assert sorted(answered) == ["/v1/logs", "/v1/metrics"]


async def test_a_collector_that_does_not_answer_holds_up_no_server_without_time(tmp_path: Path) -> None:
    async with without_models(tmp_path) as engine:
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            exporter = await started(engine, f"http://127.0.0.1:{silent.getsockname()[1]}")
            logger.info("the last line")
            with anyio.fail_after(4):  # less than is given to a collector where there is time
                await exporter.stop(0)
