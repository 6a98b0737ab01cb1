"""Starting, stopping, addresses and options of the transport as a whole."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trivet.errors import InvalidArgumentError
from trivet.http import HttpResponse, Listener, Route
from trivet.options import Settings
from trivet_transport_http.options import OPTIONS, Limits
from trivet_transport_http.transport import create

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.anyio
async def test_addresses(serve: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        (url,) = transport.addresses["http"]
        assert url.startswith("http://127.0.0.1:")
        assert int(url.rpartition(":")[2]) > 0
    assert not transport.addresses


@pytest.mark.anyio
async def test_a_host_name_may_mean_several_addresses_on_one_port(serve: Any, echo: Any) -> None:
    async with serve(*echo, http_address="localhost") as transport:
        ports = {url.rpartition(":")[2] for url in transport.addresses["http"]}
        assert len(ports) == 1


@pytest.mark.anyio
async def test_metrics_listen_where_http_does_unless_told_otherwise(echo: Any) -> None:
    transport = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0, metrics_port=0))
    await transport.start({"metrics": Listener("metrics", echo)})
    assert transport.addresses["metrics"][0].startswith("http://127.0.0.1:")
    await transport.stop(0)
    transport = create(Settings.of(OPTIONS, metrics_address="127.0.0.2", metrics_port=0))
    await transport.start({"metrics": Listener("metrics", echo)})
    assert transport.addresses["metrics"][0].startswith("http://127.0.0.2:")
    await transport.stop(0)


@pytest.mark.anyio
async def test_several_listeners(connect: Any) -> None:
    transport = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0, metrics_port=0))
    await transport.start(
        {
            name: Listener(name, [Route("GET", "/", lambda request, name=name: HttpResponse(200, (name.encode(),)))])
            for name in ("http", "metrics")
        }
    )
    for name in ("http", "metrics"):
        client = await connect(transport, name)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).body == name.encode()
    await transport.stop(5)


@pytest.mark.anyio
async def test_a_taken_port_is_named_and_what_was_bound_is_let_go(serve: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        port = int(transport.addresses["http"][0].rpartition(":")[2])
        other = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0, metrics_port=port))
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(--metrics-port\): Address already"):
            await other.start({"http": Listener("http", echo), "metrics": Listener("metrics", echo)})
        assert not other.addresses


@pytest.mark.anyio
async def test_an_address_that_is_not_ours() -> None:
    for address in ("192.0.2.1", "no-such-host.invalid"):
        transport = create(Settings.of(OPTIONS, http_address=address, http_port=0))
        with pytest.raises(OSError, match=rf"cannot listen on {address}:0 \(--http-port\)"):
            await transport.start({"http": Listener("http")})


@pytest.mark.anyio
async def test_a_listener_that_no_option_knows() -> None:
    with pytest.raises(InvalidArgumentError, match="'admin'"):
        await create(Settings.of(OPTIONS)).start({"admin": Listener("admin")})


@pytest.mark.anyio
async def test_a_port_shared_by_several_servers(serve: Any, echo: Any) -> None:
    async with serve(*echo, reuse_http_port=True) as first:
        port = int(first.addresses["http"][0].rpartition(":")[2])
        async with serve(*echo, reuse_http_port=True, http_port=port) as second:
            assert second.addresses == first.addresses


@pytest.mark.anyio
async def test_a_unix_socket(serve: Any, echo: Any, tmp_path: Path) -> None:
    path = tmp_path / "trivet.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with serve(*echo, http_unix_socket=str(path)) as transport:
        assert transport.addresses["http"][1] == f"http+unix:{path}"
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        await writer.wait_closed()
        other = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0, http_unix_socket=str(path)))
        with pytest.raises(OSError, match=r"\(--http-unix-socket\): Address already in use"):
            await other.start({"http": Listener("http", echo)})
        assert path.exists()
    assert not path.exists()


@pytest.mark.anyio
async def test_stopping_lets_requests_finish_and_takes_no_new_ones(serve: Any, connect: Any, echo: Any) -> None:
    arrived = asyncio.Queue[Any]()
    async with serve(*echo, Route("GET", "/later", arrived.put_nowait)) as transport:
        idle = await connect(transport)
        idle.send(GET)
        assert (await idle.reply()).body == b"hello"
        busy = await connect(transport)
        busy.send(GET.replace(b"hello", b"later"))
        request = await arrived.get()
        url = transport.addresses["http"][0]
        stopping = asyncio.create_task(transport.stop(20))
        assert await idle.ended() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        assert not stopping.done()
        request.respond(HttpResponse(200, (b"later",)))
        reply = await busy.reply()
        assert (reply.body, reply.headers["connection"]) == (b"later", "close")
        await stopping


@pytest.mark.anyio
async def test_stopping_does_not_wait_for_ever(serve: Any, connect: Any, caplog: Any) -> None:
    arrived = asyncio.Queue[Any]()
    gone = asyncio.Event()

    def handler(request: Any) -> None:
        request.on_disconnect = gone.set
        arrived.put_nowait(request)

    async with serve(Route("GET", "/hello", handler)) as transport:
        client = await connect(transport)
        client.send(GET)
        await arrived.get()
        await transport.stop(0.01)
        assert gone.is_set()
        assert await client.ended() == b""
    assert caplog.messages == ["closing 1 HTTP connections that are still busy"]


@pytest.mark.anyio
async def test_routes_that_contradict_stop_the_start(echo: Any) -> None:
    transport = create(Settings.of(OPTIONS, http_address="127.0.0.1", http_port=0))
    with pytest.raises(ValueError, match="two routes answer the same requests"):
        await transport.start({"http": Listener("http", [*echo, *echo])})


@pytest.mark.parametrize(
    ("option", "value"), [("http_header_timeout", 0), ("http_max_connections", 0), ("http_min_body_rate", -1)]
)
def test_limits_that_make_no_sense(option: str, value: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--{option.replace('_', '-')} is {value}, expected at least"):
        create(Settings.of(OPTIONS, **{option: value}))


def test_connections_leave_descriptors_for_the_rest_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits.of(Settings.of(OPTIONS, http_max_connections=1000))
    for soft, expected in ((1024, 768), (100, 50), (65536, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert limits.within_descriptors().max_connections == expected


def test_the_plugin_imports_nothing_heavy() -> None:
    code = """if True:
        import importlib, sys
        import trivet_transport_http.plugin

        def imported():
            return {name.partition(".")[0] for name in sys.modules}

        (offer,) = trivet_transport_http.plugin.trivet_http_transports()
        assert not imported() & {"httptools", "numpy", "ssl", "hypercorn", "uvloop"}, imported()
        module, name = offer.factory.split(":")
        getattr(importlib.import_module(module), name)
        assert not imported() & {"hypercorn", "h2", "h11", "aioquic", "uvloop"}, imported()
    """
    subprocess.run([sys.executable, "-c", code], check=True)
