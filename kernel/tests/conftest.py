from pathlib import Path
from typing import Any

import pytest
from arithmetic_backend import ArithmeticPlugin, Journal
from response_caches import House


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
