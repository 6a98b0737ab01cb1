from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from otlp_collector import Collector, collecting
from trivet.testing import RunningServer
from trivet.testing.conformance import ExporterConformance


class TestOpenTelemetry(ExporterConformance):
    exporter = "opentelemetry"

    @pytest.fixture(autouse=True)
    def _collector(self) -> Iterator[None]:
        with collecting() as self.collector:
            self.settings = self._sending_to(self.collector.url)  # type: ignore[misc]
            yield

    def _sending_to(self, url: str) -> dict[str, Any]:
        trace = ["mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={url}/v1/traces"]
        return {
            "trace_config": [*trace, "opentelemetry,bsp_schedule_delay=10"],
            "otel_metrics_url": f"{url}/v1/metrics",
            "otel_metrics_interval_ms": 10,
            "otel_logs_url": f"{url}/v1/logs",
        }

    def exported(self, server: RunningServer) -> str:
        """Metrics that were read from now on; the first that come may have been read before."""

        def readings(collector: Collector) -> int:
            return sum(metric.name == "nv_inference_count" for metric in collector.metrics)

        before = readings(self.collector)
        self.collector.wait_until(lambda collector: readings(collector) >= before + 2)
        latest = {metric.name: metric for metric in self.collector.metrics}
        return "\n".join(
            f"{name} {[each.value.string_value for each in point.attributes]} {point.as_int}"
            for name, metric in latest.items()
            for point in metric.sum.data_points
        )

    def nowhere(self) -> dict[str, Any]:
        with collecting() as gone:
            return self._sending_to(gone.url)
