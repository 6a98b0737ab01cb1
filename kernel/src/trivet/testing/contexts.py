"""A backend by itself: what the kernel would tell it of a model, and an instance without an engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from trivet.backend import Backend, BackendInstance, InstanceContext, ModelContext
from trivet.config import POOL, ModelConfig


def model_context(
    model_path: Path,
    config: str = "",
    *,
    backend: str = "",
    name: str = "",
    options: Mapping[str, str] | None = None,
) -> ModelContext:
    """Version 1 of a model in the folder ``model_path``, which is made; ``config`` is the text of a ``config.pbtxt``.

    ``backend`` is written into the configuration, ``name`` is that of the folder unless given, and ``options`` are
    those of ``--backend-config``. Nothing is completed or checked. Raises
    :class:`google.protobuf.text_format.ParseError` for text that is no configuration.
    """
    name = name or model_path.name
    version_path = model_path / "1"
    version_path.mkdir(parents=True, exist_ok=True)
    message = ModelConfig(name=name, backend=backend)
    text_format.Parse(config, message, descriptor_pool=POOL)
    return ModelContext(
        name=name,
        version=1,
        model_path=model_path,
        version_path=version_path,
        config=message,
        logger=logging.getLogger(f"trivet.model.{name}"),
        backend_options=options or {},
    )


@contextmanager
def running_instance(backend: Backend, context: ModelContext, **placement: Any) -> Iterator[BackendInstance]:
    """Complete the configuration, load the model, and create one instance on this thread; closed at the end.

    ``placement`` are fields of :class:`~trivet.backend.InstanceContext`; the CPU unless it says otherwise.
    """
    backend.auto_complete(context)
    model = backend.load(context)
    try:
        instance = model.create_instance(InstanceContext(**{"name": f"{context.name}_0_0", "kind": "CPU", **placement}))
        try:
            yield instance
        finally:
            instance.close()
    finally:
        model.close()
