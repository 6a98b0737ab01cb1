"""A running server for each of the two gRPC servers, models to call, and unmodified clients."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from trivet import hookimpl
from trivet.hookspecs import BackendPlugin, ProtocolPlugin
from trivet.plugins import PluginRegistry
from trivet.testing import RunningServer, running_server
from trivet_protocol_kserve_v2.grpc.options import OPTIONS

from .models import GATE, ModelsBackend, write_models

NATIVE = pytest.mark.skipif(importlib.util.find_spec("pygrpc_native") is None, reason="pygrpc-native is not installed")


class GrpcOnly:
    """The gRPC half of the package, and the models of these tests."""

    @hookimpl
    def trivet_protocols(self) -> list[ProtocolPlugin]:
        factory = "trivet_protocol_kserve_v2.grpc.service:create"
        return [ProtocolPlugin(name="kserve_v2_grpc", factory=factory, options=OPTIONS)]

    @hookimpl
    def trivet_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="models", factory=ModelsBackend)]


@pytest.fixture(scope="session")
def registry() -> PluginRegistry:
    return PluginRegistry.of(grpc=GrpcOnly())


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", params=["aio", pytest.param("native", marks=NATIVE)])
def grpc_server(request: pytest.FixtureRequest) -> str:
    """Every test that uses a server runs on both."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def serve(registry: PluginRegistry, repository: Path) -> Callable[..., Any]:
    """``with serve(grpc_server=..., ...) as server`` starts a server of the test's own."""

    def start(**settings: Any) -> Any:
        settings.setdefault("model_control_mode", "explicit")
        settings.setdefault("load_model", ["*"])
        return running_server(repository, registry=registry, **settings)

    return start


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any], grpc_server: str) -> Iterator[RunningServer]:
    """The server that tests share; they leave its models as they found them."""
    with serve(grpc_server=grpc_server) as running:
        yield running


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    """No test finds the gate as another left it."""
    yield
    GATE.reset()


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does is no error of the server's."""
    yield
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors]


@pytest.fixture
def client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as connected:
        yield connected
