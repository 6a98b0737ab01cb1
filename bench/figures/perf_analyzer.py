"""What users see: Triton's perf_analyzer, 32 concurrent, HTTP and gRPC, on the model of the figures http and grpc.

perf_analyzer takes about half of a small machine for itself, which brings every server closer to every other.
"""

from __future__ import annotations

from functools import partial

from bench import load, servers
from bench.calls import doubling
from bench.report import Report
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds

# Which protocols of each server are measured: Trivet's two gRPC servers share one HTTP server.
AIO, NATIVE, TRITON = "trivet", "trivet (native)", "triton"
PROTOCOLS = {AIO: ("http", "grpc"), NATIVE: ("grpc",), TRITON: ("http", "grpc")}


def run(settings: Settings, report: Report) -> None:
    call, doubled = doubling()
    with repository() as models:
        models.link(EXAMPLES / "double")
        with (
            servers.trivet(models.path, name=AIO) as aio,
            servers.trivet(models.path, "--grpc-server=native", name=NATIVE) as native,
            servers.real_triton(models.path, name=TRITON) as triton,
        ):
            for server in (aio, native, triton):
                call.verify(server, doubled)
            for order in rounds(settings, report, (aio, native, triton)):
                for server in order:
                    for protocol in PROTOCOLS[server.name]:
                        seen = report.quietly(
                            partial(load.perf_analyzer, server, call.model, protocol, 32, settings.seconds)
                        )
                        report.add(f"{protocol}, {server.name}", seen.rate, "requests/s")
    report.ratio("http, trivet / triton", f"http, {AIO}", f"http, {TRITON}")
    for name in (AIO, NATIVE):
        report.ratio(f"grpc, {name} / triton", f"grpc, {name}", f"grpc, {TRITON}")
