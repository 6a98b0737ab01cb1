"""What builds plans for the GPU that is there, for tests that execute them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from trivet_backend_trt import driver, library


def builder_here() -> dict[str, Any]:
    """Of ``BuildOptions``: TensorRT where it is installed, else TensorRT for RTX where it has plans for this GPU.

    Skips the test where it has none, as for the GPUs of data centres.
    """
    if find_spec("tensorrt") is not None:
        return {"library": "tensorrt"}
    trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT, or TensorRT for RTX (trivet-backend-trt[rtx])")
    here = driver.compute_capability(0)
    if here not in library.compute_capabilities(trt):
        pytest.skip(f"TensorRT for RTX has no plans for compute capability {here}, and TensorRT is not installed")
    return {"library": "tensorrt_rtx", "compute_capabilities": ["current"]}
