"""A backend, and instances of models without an engine."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tf_models import MakeContext, MakeInstance
from trivet.backend import ArrayInstance, ModelContext
from trivet.testing import model_context, running_instance
from trivet_backend_tf.backend import TensorFlowBackend

# What models are written with would take nearly all of a GPU's memory, which other tests of the process need too.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@pytest.fixture(scope="session", autouse=True)
def set_aside() -> Iterator[None]:
    """As a server does when it has started: of TensorFlow's 270,000 objects no collection needs to take notice."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def context(tmp_path: Path) -> MakeContext:
    """A model called ``m``: what ``write`` writes where the path is, and a configuration."""

    def make(write: Callable[[Path], Any] | bytes | None, config: str = "", *, name: str = "", **options: Any) -> Any:
        made = model_context(tmp_path / "m", config, backend="tensorflow", **options)
        is_file = isinstance(write, bytes)
        path = made.version_path / (name or ("model.graphdef" if is_file else "model.savedmodel"))
        if isinstance(write, bytes):
            path.write_bytes(write)
        elif write is not None:
            write(path)
        return made

    return make


@pytest.fixture(scope="session")
def backend() -> TensorFlowBackend:
    return TensorFlowBackend()


@pytest.fixture
def instance(backend: TensorFlowBackend) -> Iterator[MakeInstance]:
    """Complete the configuration, load the model and create one instance of it, on the CPU unless placed elsewhere."""
    with ExitStack() as stack:

        def make(made: ModelContext, **placement: Any) -> ArrayInstance:
            created = stack.enter_context(running_instance(backend, made, **placement))
            assert isinstance(created, ArrayInstance)
            return created

        yield make
