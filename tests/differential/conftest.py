"""Both servers on the models of ``models/``, which most cases ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .pairs import Endpoints, running_triton, running_trivet

MODELS = Path(__file__).parent / "models"
HEADER_PATTERN = "^x-fwd-"


@pytest.fixture(scope="session")
def real_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A real Triton with all models loaded, controlled explicitly."""
    options = [f"--{protocol}-header-forward-pattern={HEADER_PATTERN}" for protocol in ("http", "grpc")]
    with running_triton(MODELS, tmp_path_factory.mktemp("triton"), options=options) as endpoints:
        yield endpoints


@pytest.fixture(scope="session")
def trivet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Trivet with all models loaded, controlled explicitly."""
    with running_trivet(
        MODELS,
        tmp_path_factory.mktemp("trivet"),
        http_header_forward_pattern=HEADER_PATTERN,
        grpc_header_forward_pattern=HEADER_PATTERN,
    ) as endpoints:
        yield endpoints
