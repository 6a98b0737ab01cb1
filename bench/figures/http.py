"""Sixteen floats doubled by a Python model over HTTP/1.1, beside the real Triton's Python backend.

The same model repository for both, every option at its default, the load from wrk with the tensors in binary.
"""

from __future__ import annotations

from functools import partial

from bench import servers
from bench.calls import doubling
from bench.load import checked, wrk
from bench.report import Report, at_least, at_most
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds


def run(settings: Settings, report: Report) -> None:
    call, doubled = doubling()
    with repository() as models:
        models.link(EXAMPLES / "double")
        with servers.trivet(models.path) as trivet, servers.real_triton(models.path) as triton:
            for server in (trivet, triton):
                call.verify(server, doubled)
                checked(wrk, server, call, 32, 1)
            for order in rounds(settings, report, (trivet, triton)):
                for server in order:
                    load = report.quietly(partial(checked, wrk, server, call, 32, settings.seconds))
                    report.add(f"{server.name}, 32 in flight", load.rate, "requests/s")
                    report.add(f"{server.name}, 32 in flight, processor time", load.server_us, "µs/request")
                    alone = report.quietly(partial(checked, wrk, server, call, 1, settings.seconds))
                    report.add(f"{server.name}, one at a time, p50", alone.p50_ms, "ms")
    report.ratio("32 in flight, trivet / triton", "trivet, 32 in flight", "triton, 32 in flight", at_least(2.0))
    report.ratio(
        "one at a time, p50, trivet / triton",
        "trivet, one at a time, p50",
        "triton, one at a time, p50",
        at_most(0.7),
    )
