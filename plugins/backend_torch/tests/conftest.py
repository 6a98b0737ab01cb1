"""Small networks, and contexts to load them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from trivet.backend import ArrayInstance, BackendInstance, ModelContext
from trivet.testing import model_context, running_instance
from trivet_backend_torch.backend import TorchBackend

MakeContext = Callable[..., ModelContext]


@pytest.fixture
def context(tmp_path: Path) -> MakeContext:
    """A model folder, described to the backend; ``config`` is the text of a config.pbtxt, ``files`` go into ``1/``."""

    def make(
        files: Mapping[str, bytes | str | Callable[[Path], Any]],
        config: str = "",
        *,
        name: str = "m",
        options: Mapping[str, str] | None = None,
    ) -> ModelContext:
        made = model_context(tmp_path / name, config, backend="pytorch", name=name, options=options)
        for filename, content in files.items():
            path = made.version_path / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            elif isinstance(content, str):
                path.write_text(content)
            else:
                path.write_bytes(content)
        return made

    return make


@pytest.fixture(scope="session")
def backend() -> TorchBackend:
    return TorchBackend()


@pytest.fixture
def create(backend: TorchBackend) -> Iterator[Callable[..., BackendInstance]]:
    """Complete the configuration, load the model and create one instance of it, on the CPU unless placed elsewhere."""
    with ExitStack() as stack:

        def make(described: ModelContext, **placement: Any) -> BackendInstance:
            return stack.enter_context(running_instance(backend, described, **placement))

        yield make


@pytest.fixture
def instance(create: Callable[..., BackendInstance]) -> Callable[..., ArrayInstance]:
    def make(described: ModelContext, **placement: Any) -> ArrayInstance:
        created = create(described, **placement)
        assert isinstance(created, ArrayInstance)
        return created

    return make
