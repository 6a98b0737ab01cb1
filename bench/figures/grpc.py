"""Sixteen floats doubled by a Python model over gRPC, on grpc.aio and on pygrpc-native, beside the real Triton.

The same model repository for all; the load from h2load with frames made beforehand.
"""

from __future__ import annotations

from functools import partial

from bench import servers
from bench.calls import doubling
from bench.load import checked, h2load
from bench.report import Report, at_least, at_most
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds

AIO, NATIVE, TRITON = "trivet (aio)", "trivet (native)", "triton"


def run(settings: Settings, report: Report) -> None:
    call, doubled = doubling()
    with repository() as models:
        models.link(EXAMPLES / "double")
        with (
            servers.trivet(models.path, "--grpc-server=aio", name=AIO) as aio,
            servers.trivet(models.path, "--grpc-server=native", name=NATIVE) as native,
            servers.real_triton(models.path, name=TRITON) as triton,
        ):
            for server in (aio, native, triton):
                call.verify(server, doubled)
                checked(h2load, server, call, 32, 1)
            for order in rounds(settings, report, (aio, native, triton)):
                for server in order:
                    load = report.quietly(partial(checked, h2load, server, call, 32, settings.seconds))
                    report.add(f"{server.name}, 32 in flight", load.rate, "requests/s")
                    report.add(f"{server.name}, 32 in flight, processor time", load.server_us, "µs/request")
                    alone = report.quietly(partial(checked, h2load, server, call, 1, settings.seconds))
                    report.add(f"{server.name}, one at a time, p50", alone.p50_ms, "ms")
    for name, limit in ((AIO, 0.4), (NATIVE, 1.7)):
        peer = f"{TRITON}, 32 in flight"
        report.ratio(f"32 in flight, {name} / triton", f"{name}, 32 in flight", peer, at_least(limit))
    for name in (AIO, NATIVE):
        peer = f"{TRITON}, one at a time, p50"
        report.ratio(f"one at a time, p50, {name} / triton", f"{name}, one at a time, p50", peer, at_most(1.0))
