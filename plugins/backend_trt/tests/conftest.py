"""Plans, and contexts to load them with; with ``gpu``, on the stand-in of a GPU."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from trivet.backend import ModelContext
from trivet.testing import model_context, running_instance
from trivet_backend_trt import driver
from trivet_backend_trt.backend import TensorRTBackend

if TYPE_CHECKING:
    from cuda_standin import HostCuda
    from trivet_backend_trt.instance import TensorRTInstance


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., ModelContext]:
    """A model folder, described to the backend; ``config`` is the text of a config.pbtxt, ``files`` go into ``1/``."""

    def make(
        files: Mapping[str, bytes] | bytes, config: str = "", options: Mapping[str, str] | None = None
    ) -> ModelContext:
        made = model_context(tmp_path / "m", config, backend="tensorrt", options=options)
        made.config.platform = "tensorrt_plan"
        for filename, content in files.items() if isinstance(files, Mapping) else [("model.plan", files)]:
            (made.version_path / filename).write_bytes(content)
        return made

    return make


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """The stand-in in place of driver, CUDA and TensorRT. At the end nothing of it may be left allocated."""
    pytest.importorskip("tensorrt_rtx", reason="calls are checked against the bindings of trivet-backend-trt[rtx]")
    import trt_standin as standin
    from cuda_standin import Driver, HostCuda
    from trivet_backend_trt import device

    cuda = HostCuda()
    standin.MODULE.cuda = cuda
    monkeypatch.setitem(sys.modules, "tensorrt", standin.MODULE)
    monkeypatch.setattr(device, "runtime", cuda)
    monkeypatch.setattr(device, "_KIND", cuda.cudaMemcpyKind.cudaMemcpyDefault)
    monkeypatch.setattr(driver, "_driver", Driver)
    yield cuda
    gc.collect()
    assert cuda.held() == (0, 0, 0, 0)


@pytest.fixture
def load() -> Iterator[Callable[..., TensorRTInstance]]:
    """Complete the configuration, load the model and create one instance of it, on GPU 0 unless placed elsewhere."""
    with ExitStack() as stack:

        def make(made: ModelContext, **placement: Any) -> TensorRTInstance:
            created: Any = stack.enter_context(
                running_instance(TensorRTBackend(), made, **{"kind": "GPU", **placement})
            )
            return created  # type: ignore[no-any-return]

        yield make


@pytest.fixture
def create(gpu: HostCuda, load: Callable[..., TensorRTInstance]) -> Callable[..., TensorRTInstance]:
    """The same on the stand-in."""
    return load
