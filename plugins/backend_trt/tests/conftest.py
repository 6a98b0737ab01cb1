"""Plans, and contexts to load them with; with ``gpu``, on the stand-in of a GPU."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import text_format
from trivet.backend import InstanceContext, ModelContext
from trivet.config import POOL, ModelConfig
from trivet_backend_trt import driver
from trivet_backend_trt.backend import TensorRTBackend

if TYPE_CHECKING:
    from trivet_backend_trt.instance import TensorRTInstance
    from trt_standin import HostCuda


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., ModelContext]:
    """A model folder, described to the backend; ``config`` is the text of a config.pbtxt, ``files`` go into ``1/``."""

    def make(
        files: Mapping[str, bytes] | bytes, config: str = "", options: Mapping[str, str] | None = None
    ) -> ModelContext:
        version_path = tmp_path / "m" / "1"
        version_path.mkdir(parents=True, exist_ok=True)
        for filename, content in files.items() if isinstance(files, Mapping) else [("model.plan", files)]:
            (version_path / filename).write_bytes(content)
        message = ModelConfig(name="m", backend="tensorrt", platform="tensorrt_plan")
        text_format.Parse(config, message, descriptor_pool=POOL)
        return ModelContext(
            name="m",
            version=1,
            model_path=version_path.parent,
            version_path=version_path,
            config=message,
            logger=logging.getLogger("trivet.model.m"),
            backend_options=options or {},
        )

    return make


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """The stand-in in place of driver, CUDA and TensorRT. At the end nothing of it may be left allocated."""
    pytest.importorskip("tensorrt_rtx", reason="calls are checked against the bindings of trivet-backend-trt[rtx]")
    import trt_standin as standin
    from trivet_backend_trt import device

    cuda = standin.HostCuda()
    standin.MODULE.cuda = cuda
    monkeypatch.setitem(sys.modules, "tensorrt", standin.MODULE)
    monkeypatch.setattr(device, "runtime", cuda)
    monkeypatch.setattr(device, "_KIND", cuda.cudaMemcpyKind.cudaMemcpyDefault)
    monkeypatch.setattr(driver, "_driver", standin.Driver)
    yield cuda
    gc.collect()
    assert cuda.held() == (0, 0, 0, 0)


@pytest.fixture
def load() -> Iterator[Callable[..., TensorRTInstance]]:
    """Complete the configuration, load the model and create one instance of it, on GPU 0 unless placed elsewhere."""
    opened: list[Any] = []

    def make(model_context: ModelContext, **placement: Any) -> TensorRTInstance:
        backend = TensorRTBackend()
        backend.auto_complete(model_context)
        model = backend.load(model_context)
        opened.append(model)
        created: Any = model.create_instance(InstanceContext(**{"name": "m_0_0", "kind": "GPU", **placement}))
        opened.append(created)
        return created  # type: ignore[no-any-return]

    yield make
    while opened:
        opened.pop().close()


@pytest.fixture
def create(gpu: HostCuda, load: Callable[..., TensorRTInstance]) -> Callable[..., TensorRTInstance]:
    """The same on the stand-in."""
    return load
