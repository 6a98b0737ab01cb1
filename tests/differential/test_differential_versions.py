"""Versions of a model that come, fail to load, and go, as a real Triton has them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair

pytestmark = pytest.mark.differential

CONFIG = """
backend: "python"
version_policy { all {} }
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
MODEL = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""


def add(model: Path, version: int, code: str = MODEL) -> None:
    (model / str(version)).mkdir(parents=True)
    (model / str(version) / "model.py").write_text(code)


def broken_version(model: Path) -> None:
    add(model, 2, "raise RuntimeError('no weights')")


def deleted_version(model: Path) -> None:
    shutil.rmtree(model / "2")


def mended_version(model: Path) -> None:
    add(model, 2)


def load(server: Endpoints, change: Callable[[Path], None]) -> tuple[str, dict[str, str], list[str]]:
    """What a load after a change of the model's folder is answered, the versions' states, and those that serve."""
    change(server.models / "many")
    with triton.InferenceServerClient(server.grpc) as client:
        error = ""
        try:
            client.load_model("many")
        except InferenceServerException as raised:
            # What follows is the traceback, which names the folders of the server.
            error = raised.message().partition("no weights")[0]
        index = {entry.version: entry.state for entry in client.get_model_repository_index().models}
        failed = {entry.version for entry in client.get_model_repository_index().models if "no weights" in entry.reason}
        states = {version: "failed" if version in failed else state for version, state in index.items()}
        return error, states, list(client.get_model_metadata("many").versions)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("versions")
    add(folder / "models" / "many", 1)
    (folder / "models" / "many" / "config.pbtxt").write_text(CONFIG)
    with running_pair(folder / "models", folder) as pair:
        yield pair


def test_a_version_that_fails_comes_beside_one_that_serves(pair: Pair) -> None:
    assert DIFFERENCES["failed version"].transport == "models"
    theirs, ours = (load(server, broken_version) for server in pair)
    assert ours == theirs
    assert ours == (theirs[0], {"1": "READY", "2": "failed"}, ["1"])
    assert "version 2 is at UNAVAILABLE state: Internal: RuntimeError" in ours[0]
    assert load(pair.triton, deleted_version) == ("", {"1": "READY", "2": "failed"}, ["1"])
    assert load(pair.trivet, deleted_version) == ("", {"1": "READY", "2": "UNAVAILABLE"}, ["1"])
    theirs, ours = (load(server, mended_version) for server in pair)
    assert ours == theirs == ("", {"1": "READY", "2": "READY"}, ["1", "2"])
