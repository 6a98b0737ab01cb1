"""A model of any kind that cannot be loaded: the client is told why, and everything else is served as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
from wide_models import KINDS, WIDTH, is_installed

from bench import servers

INSTALLED = [kind for kind in KINDS if is_installed(kind)]
FILES = {
    "onnx": "model.onnx",
    "torchscript": "model.pt",
    "torch.export": "model.pt2",
    "torch eager": "model.py",
    "savedmodel": "model.savedmodel/saved_model.pb",
    "python": "model.py",
}


@pytest.fixture(scope="module")
def client(add_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a server on which a good model of every kind is loaded; ``client.repository`` is where more can be put."""
    repository = tmp_path_factory.mktemp("models")
    for kind in INSTALLED:
        add_model(repository, kind, f"good {kind}")
    # In a process of its own: that of the tests is to have no more frameworks than it needs.
    with (
        servers.trivet(repository, "--model-control-mode=explicit", "--load-model=*") as server,
        triton.InferenceServerClient(server.grpc) as made,
    ):
        made.repository = repository
        yield made


def remove(folder: Path, kind: str) -> None:
    file = folder / "1" / FILES[kind]
    shutil.rmtree(file.parent) if kind == "savedmodel" else file.unlink()


def damage(folder: Path, kind: str) -> None:
    (folder / "1" / FILES[kind]).write_bytes(b"\0\1 no model (")


def misdescribe(folder: Path, kind: str) -> None:
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config + 'input { name: "z" data_type: TYPE_FP32 dims: [ 7 ] }')


@pytest.mark.parametrize(
    ("spoil", "kinds", "said"),
    [
        (remove, INSTALLED, "unable to find|has no file|put the class into model.py"),
        (damage, INSTALLED, "damaged|SyntaxError"),
        # What a Python model does with its inputs is its own affair.
        (
            misdescribe,
            [kind for kind in INSTALLED if kind != "python"],
            "expects 2 inputs|unexpected inference input 'z'",
        ),
    ],
)
def test_a_load_that_fails_says_why_and_disturbs_nobody(
    spoil: Callable[[Path, str], None], kinds: list[str], said: str, client: Any, add_model: Callable[..., Path]
) -> None:
    for kind in kinds:
        name = f"{spoil.__name__} {kind}"
        spoil(add_model(client.repository, kind, name), kind)
        with pytest.raises(InferenceServerException, match=f"load failed for model '{name}': .*({said})"):
            client.load_model(name)
        assert not client.is_model_ready(name)
        reasons = {entry.name: entry.reason for entry in client.get_model_repository_index().models}
        assert reasons[name], "the index says why too"
        shutil.rmtree(client.repository / name)
    ones = np.ones((1, WIDTH), np.float32)
    x = triton.InferInput("x", ones.shape, "FP32").set_data_from_numpy(ones)
    for kind in INSTALLED:
        assert (client.infer(f"good {kind}", [x]).as_numpy("y") == WIDTH).all()
