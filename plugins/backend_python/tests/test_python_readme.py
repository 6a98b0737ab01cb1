"""The models of the README do what it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_python import plugin

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = dict(re.findall(r"```python\n# models/(\w+)/1/model\.py\n(.*?)```", README, re.DOTALL))


def test_every_snippet_is_tested():
    assert SNIPPETS.keys() == {"double", "shorten", "nearest", "thrice"}
    assert README.count("```python") == len(SNIPPETS)


def test_double(models):
    double = models.run("double", SNIPPETS["double"], "")
    assert double(x=np.array([[1, 2]], np.float32))["output"].tolist() == [[2, 4]]


def test_shorten(models):
    shorten = models.run("shorten", SNIPPETS["shorten"], "")
    words = np.array([b"grape", "grüße".encode()], dtype=object)
    result = shorten(words=words)
    assert result["words"].tolist() == [b"gra", "grü".encode()]
    assert result["lengths"].tolist() == [3, 3]
    assert shorten(words=words, limit=np.array([1], np.int32))["words"].tolist() == [b"g", b"g"]


def test_nearest(models):
    models.write("nearest", SNIPPETS["nearest"], "")
    np.save(models.root / "nearest" / "1" / "points.npy", np.array([[0, 0], [5, 5]], np.float32))
    nearest = models.load("nearest")
    assert nearest(query=np.array([[1, 1], [9, 9]], np.float32))["output"].tolist() == [[0], [1]]


@pytest.mark.anyio
async def test_thrice(tmp_path):
    for name in ("double", "thrice"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(SNIPPETS[name])
    responses = asyncio.Queue()
    async with running_engine(tmp_path, registry=PluginRegistry.of(python=plugin)) as engine:
        x = Tensor.from_numpy("x", np.array([1, 2], np.float32))
        engine.submit(
            InferenceRequest("thrice", {"x": x}, on_response=lambda _, response: responses.put_nowait(response))
        )
        for expected in ([2, 4], [4, 8], [8, 16]):
            response = await asyncio.wait_for(responses.get(), 30)
            assert response.outputs[0].numpy().tolist() == expected
        assert (await asyncio.wait_for(responses.get(), 30)).final
