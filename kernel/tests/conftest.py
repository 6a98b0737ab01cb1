from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arithmetic_backend import ArithmeticPlugin, Journal
from arithmetic_models import Repository
from response_caches import House
from trivet.engine import Engine


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def plugin() -> ArithmeticPlugin:
    """A backend that computes, and writes down what it was asked to do."""
    return ArithmeticPlugin()


@pytest.fixture
def journal(plugin: ArithmeticPlugin) -> Journal:
    return plugin.journal


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.add()
    return house


@pytest.fixture
def repository(tmp_path: Path, plugin: ArithmeticPlugin) -> Repository:
    return Repository(tmp_path, plugin)


@pytest.fixture
async def engine(repository: Repository) -> AsyncIterator[Engine]:
    """An engine under explicit control that serves the model ``double``."""
    repository.add("double")
    async with repository.serve(model_control_mode="explicit", load_models=["*"]) as running:
        yield running
