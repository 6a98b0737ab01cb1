"""A transport on a free port, a client that sends exactly the bytes it is told, and certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trivet.http import HttpResponse, Listener, Route
from trivet.options import Settings
from trivet_transport_http.options import OPTIONS
from trivet_transport_http.transport import Transport, create


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


def settings(**values: Any) -> Settings:
    return Settings.of(OPTIONS, **{"http_address": "127.0.0.1", "http_port": 0, "metrics_port": 0, **values})


@asynccontextmanager
async def serving(*routes: Route, not_found: Any = None, **values: Any) -> AsyncIterator[Transport]:
    transport = create(settings(**values))
    await transport.start({"http": Listener("http", list(routes), not_found)})
    try:
        yield transport
    finally:
        await transport.stop(0.0)


@pytest.fixture
def serve() -> Callable[..., Any]:
    """``async with serve(*routes, **settings) as transport``."""
    return serving


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """Sends bytes as they are, and reads answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Reply:
        async with asyncio.timeout(20):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name not in headers
            headers[name] = value
        return Reply(int(status), headers, b"")

    async def reply(self, *, to_head: bool = False) -> Reply:
        reply = await self.head()
        if to_head or reply.status in {100, 204, 304}:
            return reply
        async with asyncio.timeout(20):
            if reply.headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    reply.body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                assert await self.reader.readexactly(2) == b"\r\n"
            elif "content-length" in reply.headers:
                reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
            else:
                reply.body = await self.reader.read()
        return reply

    async def ended(self) -> bytes:
        """Everything until the server closes, which it must."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


Connect = Callable[..., Awaitable[RawClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """``client = await connect(transport)``; all are closed at the end."""
    clients = []

    async def connect(transport: Transport, listener: str = "http", **options: Any) -> RawClient:
        url = urlsplit(transport.addresses[listener][0])
        client = RawClient(*await asyncio.open_connection(url.hostname, url.port, limit=2**26, **options))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """``await until(condition)``: let the event loop run until ``condition()`` holds."""

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    return until


@pytest.fixture
def echo() -> list[Route]:
    """Routes that answer with what they were asked."""

    def body(request: Any) -> HttpResponse:
        return HttpResponse(200, (request.body,), ((b"content-type", b"application/octet-stream"),))

    def hello(request: Any) -> HttpResponse:
        return HttpResponse(200, (b"hello",))

    return [Route("POST", "/echo", body), Route("GET", "/hello", hello)]


@dataclass(frozen=True)
class Certificates:
    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path
    other_ca: Path

    def client_context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if with_certificate:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority, a server's certificate for 127.0.0.1 and localhost, and a client's."""
    folder = tmp_path_factory.mktemp("certificates")

    def authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        return key, sign(name, key, key, None)

    def sign(name: str, key: Any, signer: Any, issuer: x509.Certificate | None) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        return builder.sign(signer, hashes.SHA256())

    def write(name: str, *parts: bytes) -> Path:
        path = folder / name
        path.write_bytes(b"".join(parts))
        return path

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    ca_key, ca = authority("test authority")
    _, other = authority("other authority")
    key = ec.generate_private_key(ec.SECP256R1())
    client_key = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM
    return Certificates(
        ca=write("ca.pem", ca.public_bytes(encoding)),
        certificate=write("server.pem", sign("server", key, ca_key, ca).public_bytes(encoding)),
        key=write("server.key", pem(key)),
        client_certificate=write("client.pem", sign("client", client_key, ca_key, ca).public_bytes(encoding)),
        client_key=write("client.key", pem(client_key)),
        other_ca=write("other.pem", other.public_bytes(encoding)),
    )
