"""Small networks, and contexts to load them with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from trivet.backend import ArrayInstance, BackendInstance, InstanceContext, ModelContext
from trivet.config import POOL, ModelConfig
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
        version_path = tmp_path / name / "1"
        version_path.mkdir(parents=True, exist_ok=True)
        for filename, content in files.items():
            path = version_path / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            elif isinstance(content, str):
                path.write_text(content)
            else:
                path.write_bytes(content)
        message = ModelConfig(name=name, backend="pytorch")
        text_format.Parse(config, message, descriptor_pool=POOL)
        return ModelContext(
            name=name,
            version=1,
            model_path=version_path.parent,
            version_path=version_path,
            config=message,
            logger=logging.getLogger(f"trivet.model.{name}"),
            backend_options=options or {},
        )

    return make


@pytest.fixture(scope="session")
def backend() -> TorchBackend:
    return TorchBackend()


@pytest.fixture
def create(backend: TorchBackend) -> Iterator[Callable[..., BackendInstance]]:
    """Complete the configuration, load the model and create one instance of it, on the CPU unless placed elsewhere."""
    with ExitStack() as stack:

        def make(model_context: ModelContext, **placement: Any) -> BackendInstance:
            backend.auto_complete(model_context)
            model = backend.load(model_context)
            stack.callback(model.close)
            created = model.create_instance(InstanceContext(**{"name": "m_0_0", "kind": "CPU", **placement}))
            stack.callback(created.close)
            return created

        yield make


@pytest.fixture
def instance(create: Callable[..., BackendInstance]) -> Callable[..., ArrayInstance]:
    def make(model_context: ModelContext, **placement: Any) -> ArrayInstance:
        created = create(model_context, **placement)
        assert isinstance(created, ArrayInstance)
        return created

    return make
