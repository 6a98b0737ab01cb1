"""TLS and mutual TLS, with certificates made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
import trustme
from tritonclient.utils import InferenceServerException
from trivet.errors import InvalidArgumentError

from .conftest import NATIVE


class Pki:
    """PEM files of a certificate authority, a server and a client."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        stranger = trustme.CA()
        self.root = self._write(folder / "root.pem", authority.cert_pem)
        self.server = self._issue(folder, "server", authority.issue_cert("127.0.0.1", "localhost"))
        self.client = self._issue(folder, "client", authority.issue_cert("client.example"))
        self.strange_client = self._issue(folder, "strange", stranger.issue_cert("client.example"))

    def _issue(self, folder: Path, name: str, leaf: trustme.LeafCert) -> tuple[str, str]:
        """(certificate, key)"""
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (folder / f"{name}.pem").write_bytes(chain)
        return str(folder / f"{name}.pem"), self._write(folder / f"{name}.key", leaf.private_key_pem)

    @staticmethod
    def _write(path: Path, blob: trustme.Blob) -> str:
        path.write_bytes(blob.bytes())
        return str(path)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def client(url: str, pki: Pki, certificate: tuple[str, str] | None = None) -> triton.InferenceServerClient:
    chain, key = certificate or (None, None)
    return triton.InferenceServerClient(
        url, ssl=True, root_certificates=pki.root, certificate_chain=chain, private_key=key
    )


def test_tls(serve: Callable[..., Any], pki: Pki) -> None:
    certificate, key = pki.server
    with serve(grpc_use_ssl=True, grpc_server_cert=certificate, grpc_server_key=key) as server:
        with client(server.grpc_url, pki) as connected:
            assert connected.is_server_ready()
        with (
            triton.InferenceServerClient(server.grpc_url) as plain,
            pytest.raises(InferenceServerException, match="UNAVAILABLE"),
        ):
            plain.is_server_live(client_timeout=5)


def test_mutual_tls(serve: Callable[..., Any], pki: Pki) -> None:
    certificate, key = pki.server
    options = {"grpc_server_cert": certificate, "grpc_server_key": key, "grpc_root_cert": pki.root}
    with serve(grpc_use_ssl_mutual=True, **options) as server:
        with client(server.grpc_url, pki, pki.client) as known:
            assert known.is_server_ready()
        for stranger in (None, pki.strange_client):
            with (
                client(server.grpc_url, pki, stranger) as unknown,
                pytest.raises(InferenceServerException, match="UNAVAILABLE"),
            ):
                unknown.is_server_live(client_timeout=5)


@NATIVE
def test_the_native_server_refuses_tls(serve: Callable[..., Any], pki: Pki) -> None:
    certificate, key = pki.server
    options = {"grpc_use_ssl": True, "grpc_server_cert": certificate, "grpc_server_key": key}

    with (
        pytest.raises(InvalidArgumentError, match=r"^--grpc-server=native cannot do TLS .*; use --grpc-server=aio$"),
        serve(grpc_server="native", **options),
    ):
        pass


def test_a_certificate_that_is_none(serve: Callable[..., Any], pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    _, key = pki.server

    with (
        pytest.raises(Exception, match="gRPC address"),
        serve(grpc_use_ssl=True, grpc_server_cert=str(tmp_path / "bad.pem"), grpc_server_key=key),
    ):
        pass
