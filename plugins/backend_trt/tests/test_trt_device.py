"""The calls of CUDA: the real bindings take them as they are made, and the stand-in has no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import runtime
from cuda_standin import HostCuda
from trivet.errors import InternalError
from trivet.placement import gpu_count
from trivet_backend_trt import device
from trivet_backend_trt.device import Device, Stream

without_gpu = pytest.mark.skipif(bool(gpu_count()), reason="on a GPU the numbers would be real addresses")

KIND = runtime.cudaMemcpyKind.cudaMemcpyDefault
STREAM = runtime.cudaStream_t(0)
CALLS: dict[str, tuple[Any, ...]] = {
    "cudaDeviceGetAttribute": (runtime.cudaDeviceAttr.cudaDevAttrMemoryPoolsSupported, 0),
    "cudaDeviceGetStreamPriorityRange": (),
    "cudaEventCreateWithFlags": (3,),
    "cudaEventDestroy": (runtime.cudaEvent_t(0),),
    "cudaEventRecord": (runtime.cudaEvent_t(0), STREAM),
    "cudaEventSynchronize": (runtime.cudaEvent_t(0),),
    "cudaFree": (256,),
    "cudaFreeAsync": (256, STREAM),
    "cudaGetDevice": (),
    "cudaGetLastError": (),
    "cudaGraphDestroy": (runtime.cudaGraph_t(0),),
    "cudaGraphExecDestroy": (runtime.cudaGraphExec_t(0),),
    "cudaGraphInstantiate": (runtime.cudaGraph_t(0), 0),
    "cudaGraphLaunch": (runtime.cudaGraphExec_t(0), STREAM),
    "cudaMalloc": (256,),
    "cudaMallocAsync": (256, STREAM),
    "cudaMemGetInfo": (),
    "cudaMemcpyAsync": (256, 512, 4, KIND, STREAM),
    "cudaSetDevice": (0,),
    "cudaStreamBeginCapture": (STREAM, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
    "cudaStreamCreateWithPriority": (1, 0),
    "cudaStreamDestroy": (STREAM,),
    "cudaStreamEndCapture": (STREAM,),
    "cudaStreamSynchronize": (runtime.cudaStreamPerThread,),
}


@without_gpu
@pytest.mark.parametrize("name", CALLS)
def test_the_bindings_take_the_arguments(name: str) -> None:
    """Without a driver each is answered by an error, and none raises."""
    error, *_ = getattr(runtime, name)(*CALLS[name])
    assert isinstance(error, runtime.cudaError_t)


def test_these_are_all_that_are_made() -> None:
    used = set(re.findall(r"\bruntime\.(cuda[A-Z]\w+)", Path(device.__file__).read_text(encoding="utf-8")))
    values = {"cudaMemcpyKind", "cudaDeviceAttr", "cudaStreamCaptureMode", "cudaError_t", "cudaStreamPerThread"}
    assert used - values - {"cudaGetErrorString"} == set(CALLS)


def test_the_stand_in_takes_as_many_arguments() -> None:
    standin = HostCuda()
    for name, arguments in CALLS.items():
        if hasattr(standin, name):
            assert len(arguments) == getattr(standin, name).__code__.co_argcount - 1, name


@without_gpu
def test_without_a_driver_cuda_says_so() -> None:
    for make in (lambda: Device(0), lambda: Stream(object.__new__(Device))):
        with pytest.raises(InternalError, match=r"cudaErrorInsufficientDriver|cudaErrorNoDevice"):
            make()
