"""What the tests of both transports share: a repository of small models, and the gate that holds their requests."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.testing import RunningServer

from .grpc.models import FLOOD, GATE, FloodLevel, Gate, ModelsBackend, write_models


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = write_models(tmp_path_factory.mktemp("models"))
    return path


@pytest.fixture(scope="session")
def models() -> BackendPlugin:
    """The backend of the models in the repository."""
    return BackendPlugin(name="models", factory=ModelsBackend)


@pytest.fixture
def gate() -> Gate:
    """Holds requests of the model ``gate`` until a test opens it; each test has values of its own from 1000."""
    return GATE


@pytest.fixture
def flood() -> FloodLevel:
    """Says how far the model ``flood`` has got with its last request."""
    return FLOOD


@pytest.fixture
def finished(server: RunningServer) -> Iterator[queue.Queue[tuple[InferenceRequest, InferenceResponse]]]:
    """Final responses, as the engine of either transport's server gave them."""
    seen: queue.Queue[tuple[InferenceRequest, InferenceResponse]] = queue.Queue()

    def observe(request: InferenceRequest, response: InferenceResponse) -> None:
        seen.put((request, response))

    server.engine.on_finished.append(observe)
    yield seen
    server.engine.on_finished.remove(observe)
