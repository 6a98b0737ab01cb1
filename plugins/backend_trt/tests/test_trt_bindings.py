"""The names that the backend uses are there in every TensorRT that it supports, with these arguments."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from trivet_backend_trt import library
from trivet_backend_trt.contexts import _allocator_class
from trivet_backend_trt.memory import Pool
from trt_bindings import fits, installed, overloads

SOURCES = Path(library.__file__).parent

# What the backend calls, and with what; of classes that the lean runtime has too.
CALLS: dict[str, dict[str, tuple[object, ...]]] = {
    "Runtime": {"deserialize_cuda_engine": (b"plan",), "get_plugin_registry": ()},
    "ICudaEngine": {
        "create_execution_context": (object(),),
        "get_device_memory_size_for_profile_v2": (0,),
        "get_tensor_components_per_element": ("x",),
        "get_tensor_dtype": ("x",),
        "get_tensor_format_desc": ("x",),
        "get_tensor_location": ("x",),
        "get_tensor_mode": ("x",),
        "get_tensor_name": (0,),
        "get_tensor_profile_shape": ("x", 0),
        "get_tensor_profile_values": (0, "x"),
        "get_tensor_shape": ("x",),
        "get_tensor_vectorized_dim": ("x",),
        "get_weight_streaming_automatic_budget": (),
        "create_runtime_config": (),
    },
    "IExecutionContext": {
        "execute_async_v3": (7,),
        "get_tensor_shape": ("x",),
        "infer_shapes": (),
        "set_device_memory": (256, 1000),
        "set_input_shape": ("x", (1, 2)),
        "set_optimization_profile_async": (0, 7),
        "set_output_allocator": ("x", object()),
        "set_tensor_address": ("x", 256),
    },
    "IPluginRegistry": {"load_library": ("path",)},
    "IRuntimeConfig": {"set_execution_context_allocation_strategy": (object(),)},
}
PROPERTIES = {
    "Runtime": ("DLA_core", "engine_host_code_allowed", "num_DLA_cores"),
    "ICudaEngine": (
        "num_io_tensors",
        "num_optimization_profiles",
        "streamable_weights_size",
        "weight_streaming_budget_v2",
    ),
    "ExecutionContextAllocationStrategy": ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "TensorLocation": ("HOST",),
    "ILogger": ("Severity", "log"),
}

# Of the runtime, with a reason: asked for with hasattr(), since only TensorRT for RTX has it.
ONLY_RTX = ("get_engine_validity", "cuda_graph_strategy", "CudaGraphStrategy", "EngineValidity")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_lean", "tensorrt_rtx"])
def test_calls_fit_the_signatures_of_the_bindings(name: str) -> None:
    module = next((found for found in installed() if found.__name__ == name), None)
    if module is None:
        pytest.skip(f"{name} is not installed")
    for kind, methods in CALLS.items():
        for method, arguments in methods.items():
            known = overloads(method, getattr(getattr(module, kind), method).__doc__)
            assert any(fits(signature, arguments) for signature in known), f"{name}: {kind}.{method} takes {known}"
    for kind, members in PROPERTIES.items():
        for member in members:
            assert hasattr(getattr(module, kind), member), f"{name} has no {kind}.{member}"


def test_every_call_of_the_backend_is_among_them() -> None:
    """What follows these names in the sources that execute plans is a member of a class of TensorRT."""
    receivers = {"engine.py": r"_?(?:runtime|engine)", "contexts.py": "_?context", "signature.py": "engine"}
    known = {method for methods in CALLS.values() for method in methods} | set(ONLY_RTX)
    known |= {member for members in PROPERTIES.values() for member in members}
    for source, receiver in receivers.items():
        used = set(re.findall(rf"\b{receiver}\.([A-Za-z]\w*)\b", (SOURCES / source).read_text()))
        assert used
        assert used <= known, f"{source} uses {used - known}"


@pytest.mark.parametrize("module", installed(), ids=lambda module: module.__name__)
def test_what_tensorrt_calls_back_can_be_made_of_its_classes(module: ModuleType, caplog: Any) -> None:
    """A log, and an allocator of outputs; that takes neither a GPU nor a runtime, which would end the process."""
    log = library.log_of(module)
    assert library.log_of(module) is log
    with library.collecting_errors() as errors:
        log.log(module.ILogger.Severity.ERROR, "what went wrong ")
        log.log(module.ILogger.Severity.WARNING, "take care")
    log.log(module.ILogger.Severity.ERROR, "nobody raises this")
    assert errors == ["what went wrong"]
    assert [record.message for record in caplog.records] == ["take care", "nobody raises this"]

    memory = np.zeros(4096, np.uint8)
    pool = Pool(lambda size: memory.ctypes.data, lambda address: None)
    allocator = _allocator_class(module)(pool)
    assert allocator.reallocate_output_async("y", 0, 100, 256, 0) == memory.ctypes.data
    allocator.notify_shape("y", module.Dims([2, 3]))
    assert allocator.shape == (2, 3)
    assert allocator.block.byte_size >= 100
    assert isinstance(allocator, module.IOutputAllocator)
