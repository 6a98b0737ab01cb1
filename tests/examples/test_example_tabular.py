"""The example of a backend by an outsider: from a wheel, with the kit's tests, and serving what its script trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import OutsidersPackage

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> OutsidersPackage:
    return OutsidersPackage("trivet-backend-tabular", tmp_path_factory.mktemp("tabular"))


def test_it_passes_the_tests_of_its_contract(package: OutsidersPackage, tmp_path: Path) -> None:
    package.check_its_tests(tmp_path)


def test_it_serves_what_the_script_trains(package: OutsidersPackage, tmp_path: Path) -> None:
    program = """
import asyncio, sys
import numpy as np
from sklearn.datasets import load_diabetes, load_iris, load_wine
from trivet.testing import running_engine
from trivet.testing.conformance.requests import infer, request

async def main():
    async with running_engine(sys.argv[1]) as engine:
        for name, table in (("iris", load_iris()), ("diabetes", load_diabetes()), ("wine", load_wine())):
            found = await infer(engine, request(name, {"x": table.data.astype(np.float32)}))
            if name == "iris":
                right = found["label"][:, 0] == [one.encode() for one in table.target_names[table.target]]
                print(name, np.mean(right) > 0.95)
            elif name == "wine":
                print(name, np.mean(found["value"].argmax(axis=1) == table.target) > 0.95)
            else:
                print(name, np.corrcoef(found["value"][:, 0], table.target)[0, 1] > 0.8)

asyncio.run(main())
"""
    subprocess.run(
        [sys.executable, str(package.source / "train.py"), "models"], cwd=tmp_path, env=package.environment, check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "models"],
        cwd=tmp_path, env=package.environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["iris", "True", "diabetes", "True", "wine", "True"]


def test_it_is_as_short_as_it_says(package: OutsidersPackage) -> None:
    lines = sum(len(file.read_text().splitlines()) for file in (package.source / "src").rglob("backend.py"))
    assert lines < 200
