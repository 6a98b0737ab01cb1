"""What tracing costs: the smallest model over HTTP, with every request traced, one in 100, and none.

Spans go to a collector in a process of its own, which takes them and does nothing with them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import servers
from bench.calls import doubling
from bench.load import checked, wrk
from bench.report import Report, at_least, at_most
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds

SPANS = (
    "mode=opentelemetry",
    "level=TIMESTAMPS",
    # The default queue is full after 11 ms of such a load, and what is dropped costs nothing.
    "opentelemetry,bsp_max_queue_size=32768",
    "opentelemetry,bsp_max_export_batch_size=2048",
)

# Reads requests as fast as they come, and answers each with 200.
_COLLECTOR = """
import asyncio

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
    except asyncio.IncompleteReadError:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def run(settings: Settings, report: Report) -> None:
    call, doubled = doubling()
    with repository() as models, collector() as url, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models.link(EXAMPLES / "double")
        spans = [*SPANS, f"opentelemetry,url={url}"]
        file = [f"triton,file={Path(folder, 'trace.json')}", "triton,log-frequency=1000", "level=TIMESTAMPS"]
        contenders = [
            stack.enter_context(servers.trivet(models.path, *_options(*config), name=name))
            for name, config in (
                ("no tracing", ()),
                ("spans of every request", (*spans, "rate=1")),
                ("spans of one in 100", (*spans, "rate=100")),
                ("a file of every request", (*file, "rate=1")),
                ("a file of one in 100", (*file, "rate=100")),
            )
        ]
        for server in contenders:
            call.verify(server, doubled)
            checked(wrk, server, call, 32, 1)
        for order in rounds(settings, report, contenders):
            for server in order:
                load = report.quietly(partial(checked, wrk, server, call, 32, settings.seconds))
                report.add(server.name, load.rate, "requests/s")
                report.add(f"{server.name}, processor time", load.server_us, "µs/request")
                if server.name.startswith("spans"):
                    report.add(f"{server.name}, lost", _lost(server), "spans", at_most(0))
    for what, target in (("every request", 0.85), ("one in 100", 0.99)):
        for kind in ("spans of", "a file of"):
            name = f"{kind} {what}"
            report.ratio(f"{name} / no tracing", name, "no tracing", at_least(target))
            ours, peer = f"{name}, processor time", "no tracing, processor time"
            report.ratio(f"no tracing / {name}, processor time", peer, ours)


def _options(*config: str) -> list[str]:
    return [f"--trace-config={each}" for each in config]


def _lost(server: servers.Server) -> float:
    """Spans that were not delivered so far."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=60) as response:
        found = re.findall(rb"^trivet_otlp_dropped\S* (\S+)$", response.read(), re.MULTILINE)
    return sum(map(float, found))


@contextmanager
def collector() -> Iterator[str]:
    """A collector in a process of its own: the URL for spans."""
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/traces"
        finally:
            process.kill()
