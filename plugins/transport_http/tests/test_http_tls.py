"""TLS, mutual TLS, and what is said when a file will not do."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from trivet.errors import InvalidArgumentError
from trivet.options import Settings
from trivet_transport_http.options import OPTIONS
from trivet_transport_http.transport import create


def options(certificates: Any, **more: Any) -> dict[str, Any]:
    return {
        "http_use_ssl": True,
        "http_ssl_certificate": str(certificates.certificate),
        "http_ssl_key": str(certificates.key),
        **more,
    }


@pytest.mark.anyio
async def test_https(serve: Any, echo: Any, certificates: Any) -> None:
    async with serve(*echo, **options(certificates)) as transport:
        (url,) = transport.addresses["http"]
        assert url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(verify=certificates.client_context()) as client:
            body = b"x" * 3_000_000
            for _ in range(2):
                assert (await client.post(f"{url}/echo", content=body)).content == body
            response = await client.get(f"{url}/hello")
            assert (response.http_version, response.content) == ("HTTP/1.1", b"hello")


@pytest.mark.anyio
async def test_a_refused_request_over_tls(serve: Any, connect: Any, echo: Any, certificates: Any) -> None:
    async with serve(*echo, **options(certificates, http_max_body_size=10)) as transport:
        client = await connect(transport, ssl=certificates.client_context())
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        assert (await client.reply()).status == 413
        assert await client.ended() == b""


@pytest.mark.anyio
async def test_old_versions_are_refused(serve: Any, connect: Any, echo: Any, certificates: Any) -> None:
    async with serve(*echo, **options(certificates)) as transport:
        context = certificates.client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(transport, ssl=context)
        context = certificates.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = await connect(transport, ssl=context)
        assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.2"


@pytest.mark.anyio
async def test_mutual_tls(serve: Any, echo: Any, certificates: Any) -> None:
    async with serve(*echo, **options(certificates, http_ssl_client_ca=str(certificates.ca))) as transport:
        (url,) = transport.addresses["http"]
        async with httpx.AsyncClient(verify=certificates.client_context(with_certificate=True)) as client:
            assert (await client.get(f"{url}/hello")).content == b"hello"
        async with httpx.AsyncClient(verify=certificates.client_context()) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{url}/hello")


@pytest.mark.anyio
async def test_a_client_certificate_of_another_authority(serve: Any, echo: Any, certificates: Any) -> None:
    async with serve(*echo, **options(certificates, http_ssl_client_ca=str(certificates.other_ca))) as transport:
        (url,) = transport.addresses["http"]
        async with httpx.AsyncClient(verify=certificates.client_context(with_certificate=True)) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{url}/hello")


def refusal(**values: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        create(Settings.of(OPTIONS, **values))
    return str(caught.value)


def test_files_at_fault_are_named(certificates: Any, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.pem"
    key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    def fault(**more: Any) -> str:
        return refusal(**options(certificates, **more))

    assert fault(http_ssl_certificate=str(missing)) == (
        f"--http-ssl-certificate: cannot read {missing}: No such file or directory"
    )
    assert fault(http_ssl_certificate=str(text)) == f"--http-ssl-certificate: {text} holds no PEM certificate"
    assert str(broken) in fault(http_ssl_certificate=str(broken))
    assert fault(http_ssl_key=str(missing)) == f"--http-ssl-key: cannot read {missing}: No such file or directory"
    assert fault(http_ssl_key=str(certificates.ca)) == f"--http-ssl-key: {certificates.ca} holds no PEM private key"
    assert f"{encrypted} is encrypted" in fault(http_ssl_key=str(encrypted))
    mismatch = fault(http_ssl_key=str(certificates.client_key))
    assert str(certificates.certificate) in mismatch
    assert str(certificates.client_key) in mismatch
    assert "MISMATCH" in mismatch
    assert f"--http-ssl-client-ca: cannot read {missing}" in fault(http_ssl_client_ca=str(missing))
    assert f"--http-ssl-client-ca: {text} holds no usable" in fault(http_ssl_client_ca=str(text))


def test_options_that_do_not_go_together(certificates: Any) -> None:
    assert "needs --http-ssl-certificate" in refusal(http_use_ssl=True)
    assert "needs --http-ssl-key" in refusal(http_use_ssl=True, http_ssl_certificate=str(certificates.certificate))
    assert "without --http-use-ssl" in refusal(http_ssl_client_ca=str(certificates.ca))
    assert "no HTTP/3 without TLS" in refusal(http3_port=0)
    both = refusal(**options(certificates, http3_port=0, http_ssl_client_ca=str(certificates.ca)))
    assert "cannot check client certificates" in both
