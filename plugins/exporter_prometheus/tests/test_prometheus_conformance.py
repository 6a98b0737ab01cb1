from __future__ import annotations

import urllib.request

from trivet.testing import RunningServer
from trivet.testing.conformance import ExporterConformance


class TestPrometheus(ExporterConformance):
    exporter = "prometheus"

    def exported(self, server: RunningServer) -> str:
        with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
        return text
