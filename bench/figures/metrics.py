"""What metrics cost: each request of the smallest model, and a scrape of a server with 500 models.

The same server with and without the exporter, in turn, and once more without: as far as that one is from the other, the
machine does not tell them apart. Then one scrape after the other, as Prometheus asks for them, while every model has
counted something since the last.
"""

from __future__ import annotations

import time
import urllib.request
from functools import partial

from bench import servers
from bench.calls import Call, doubling
from bench.http_load import in_flight
from bench.load import checked, wrk
from bench.report import Report, at_least, at_most
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds

MODELS = 500
SCRAPES = 10
INTERVAL_S = 15
"""Between two scrapes, as Prometheus has it by default in most deployments."""
ACCEPTS = {
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "the classic format": "text/plain;version=0.0.4",
}


def run(settings: Settings, report: Report) -> None:
    call, doubled = doubling()
    with repository() as models:
        models.link(EXAMPLES / "double")
        with (
            servers.trivet(models.path, name="on") as on,
            servers.trivet(models.path, "--allow-metrics=false", name="off") as off,
            servers.trivet(models.path, "--allow-metrics=false", name="off again") as again,
        ):
            for server in (on, off, again):
                call.verify(server, doubled)
                checked(wrk, server, call, 32, 1)
            for order in rounds(settings, report, (on, off, again)):
                for server in order:
                    load = report.quietly(partial(checked, wrk, server, call, 32, settings.seconds))
                    report.add(f"metrics {server.name}, 32 in flight", load.rate, "requests/s")
                    report.add(f"metrics {server.name}, processor time", load.server_us, "µs/request")
    for state, target in (("on", at_least(0.98)), ("off again", None)):
        ours, peer = f"metrics {state}, 32 in flight", "metrics off, 32 in flight"
        report.ratio(f"throughput, {state} / off", ours, peer, target)
        ours, peer = f"metrics {state}, processor time", "metrics off, processor time"
        report.ratio(f"processor time, off / {state}", peer, ours, target)
    with repository() as models:
        for number in range(MODELS):
            models.copy(EXAMPLES / "double", f"double_{number}")
        with servers.trivet(models.path) as server:
            calls = [Call(f"double_{number}", call.inputs, call.output) for number in range(MODELS)]
            for formats in rounds(settings, report, tuple(ACCEPTS)):
                for name in formats:
                    wall_ms, processor_ms = report.quietly(partial(_scrapes, server, calls, ACCEPTS[name]))
                    report.add(f"a scrape, {name}", wall_ms, "ms")
                    share = processor_ms / 1000 / INTERVAL_S * 100
                    report.add(f"processor time of a scrape each {INTERVAL_S} s, {name}", share, "%", at_most(1.0))


def _scrapes(server: servers.Server, calls: list[Call], accept: str) -> tuple[float, float]:
    """The mean time that a scrape takes, and the processor time that it costs the server, in milliseconds."""
    wall_s = processor_s = 0.0
    for _ in range(SCRAPES):
        in_flight(server, calls, 8, 0.2)
        before = server.processor_s()
        began = time.perf_counter()
        request = urllib.request.Request(f"http://{server.metrics}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
        wall_s += time.perf_counter() - began
        processor_s += server.processor_s() - before
    return 1000 * wall_s / SCRAPES, 1000 * processor_s / SCRAPES
