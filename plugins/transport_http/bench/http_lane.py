"""What the HTTP/1.1 lane costs: requests per second of wrk against the lane, and against the least there can be.

    python bench/http_lane.py [SECONDS]

Needs wrk and uvloop. ``bare`` answers every read with the same bytes and parses nothing: the ceiling of the event loop.
``repeated`` posts 300 bytes with the same head each time, as clients do; ``new heads`` has a header that differs in
each request.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from trivet.http import HttpResponse, Listener, Route
from trivet.options import Settings
from trivet_transport_http.options import OPTIONS
from trivet_transport_http.transport import create

BODY = b"x" * 300
HEADERS = ((b"content-type", b"application/octet-stream"),)
SCRIPT = """
local body = string.rep("x", 300)
local number = 0
local headers = {["Content-Type"] = "application/octet-stream", ["Accept"] = "*/*"}
request = function()
  if NEW then
    number = number + 1
    headers["X-Request-Id"] = tostring(number)
  end
  return wrk.format("POST", "/v2/models/m/infer", headers, body)
end
"""


class Bare(asyncio.Protocol):
    """Answers whatever comes."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 300\r\n\r\n" + BODY

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.ANSWER)


def echo(request: Any) -> HttpResponse:
    return HttpResponse(200, (request.body,), HEADERS)


async def serve() -> None:
    """Serve both on free ports, print the ports, and stay."""
    transport = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0))
    await transport.start({"http": Listener("http", [Route("POST", "/v2/models/{model}/infer", echo)])})
    bare = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    print(transport.addresses["http"][0].rpartition(":")[2], bare.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def measure(port: str, script: Path, seconds: int) -> str:
    url = f"http://127.0.0.1:{port}"
    command = ["wrk", "-t1", "-c32", f"-d{seconds}", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None or "Non-2xx" in output:
        raise SystemExit(output)
    return f"{float(rate[1]):,.0f}/s"


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server,  # noqa: S603
    ):
        try:
            assert server.stdout is not None
            lane, bare = server.stdout.readline().split()
            for name, new in (("repeated", "false"), ("new heads", "true")):
                script = Path(folder) / "post.lua"
                script.write_text(f"NEW = {new}\n{SCRIPT}")
                for peer, port in (("bare", bare), ("lane", lane)):
                    print(f"{name:10} {peer} {measure(port, script, seconds)}", flush=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
