"""Shared memory objects of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trivet_memory_system.shared_object import FOLDER

Create = Callable[[bytes], Path]


@pytest.fixture
def create() -> Iterator[Create]:
    """``create(content)`` makes an object as a client does, and gives its file; its key is the file's name."""
    made: list[Path] = []

    def make(content: bytes) -> Path:
        path = FOLDER / f"trivet_test_{os.getpid()}_{len(made)}"
        path.write_bytes(content)
        made.append(path)
        return path

    yield make
    for path in made:
        path.unlink(missing_ok=True)
