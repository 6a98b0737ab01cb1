"""A running server on real sockets, over HTTP/1.1 and over HTTP/2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from trivet import hookimpl
from trivet.hookspecs import BackendPlugin, ProtocolPlugin
from trivet.plugins import PluginRegistry
from trivet.testing import RunningServer, running_server
from trivet_protocol_kserve_v2.http.options import OPTIONS

transport = pytest.importorskip("trivet_transport_http.plugin", reason="trivet-transport-http is not installed")


class HttpOnly:
    """The HTTP half of the package, and the models of these tests."""

    def __init__(self, models: BackendPlugin) -> None:
        self._models = models

    @hookimpl
    def trivet_protocols(self) -> list[ProtocolPlugin]:
        factory = "trivet_protocol_kserve_v2.http.service:create"
        return [ProtocolPlugin(name="kserve_v2_http", factory=factory, options=OPTIONS)]

    @hookimpl
    def trivet_backends(self) -> list[BackendPlugin]:
        return [self._models]


@pytest.fixture(scope="session")
def serve(repository: Path, models: BackendPlugin) -> Callable[..., Any]:
    """``with serve(http_restricted_api=[...], ...) as server`` starts a server of the test's own.

    ``plugins`` are further ones by name.
    """

    def start(*, plugins: Mapping[str, object] | None = None, **settings: Any) -> Any:
        settings.setdefault("model_control_mode", "explicit")
        settings.setdefault("load_model", ["*"])
        registry = PluginRegistry.of(kserve=HttpOnly(models), http=transport, **plugins or {})
        return running_server(repository, registry=registry, **settings)

    return start


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any]) -> Iterator[RunningServer]:
    """The server that tests share; they leave its models as they found them."""
    with serve(http2=True, http_header_forward_pattern="^x-fwd-", http_max_decompressed_size=100_000) as running:
        yield running


@pytest.fixture(scope="session", params=["http/1.1", "http/2"])
def client(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[httpx.Client]:
    """Every test that uses it runs over both versions of HTTP."""
    http2 = request.param == "http/2"
    with httpx.Client(
        base_url=f"http://{server.http_url}", http1=not http2, http2=http2, timeout=30, headers={"accept-encoding": ""}
    ) as connected:
        del connected.headers["accept-encoding"]
        yield connected


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
