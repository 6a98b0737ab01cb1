from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ensemble_models import Operations, Repository


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    return Repository(tmp_path)
