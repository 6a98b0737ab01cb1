"""The models of the README do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = dict(re.findall(r"```python\n# models/(\w+)/1/model\.py\n(.*?)```", README, re.DOTALL))


def test_every_snippet_is_tested():
    assert SNIPPETS.keys() == {"double", "shorten", "nearest"}
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
