"""A TensorRT whose plans are ONNX models run by ``onnx.reference``, for the GPU of :mod:`cuda_standin`.

It shows what the backend does around the library: which memory it hands over, in which order, in which shapes, and what
becomes of results and failures. It does not show that a GPU or TensorRT would do the same; the tests marked ``gpu`` do.
Each call that it gets is held against the signatures of the real bindings, so that it cannot be wrong about those.
"""

# ruff: noqa: BLE001, G004, N802 - names and messages are those of TensorRT
from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import tensorrt_rtx as real
from cuda_standin import HostCuda
from onnx.reference import ReferenceEvaluator
from trt_bindings import check_attribute, check_call, installed

installed()  # before the stand-in has the name of one of them
_TYPES = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.FLOAT8E4M3FN: "FP8",
}


def write_plan(model: onnx.ModelProto, *, version: tuple[int, int, int, int] = (10, 3, 0, 26), **about: Any) -> bytes:
    """A plan for the stand-in. ``about``: ``profiles``, ``shape_tensors``, ``data_dependent``, ``streamable`` …"""
    head = b"ftrt" + bytes(20) + bytes(version)
    text = json.dumps(about).encode()
    return head + len(text).to_bytes(4, "little") + text + model.SerializeToString()


def like_the_real(kind: str) -> Callable[[type], type]:
    """Hold each call of a method against the signature that the real bindings have for it."""

    def decorate(cls: type) -> type:
        for name, member in list(vars(cls).items()):
            if isinstance(member, property):
                check_attribute(kind, name)
            elif callable(member) and not name.startswith("_"):
                setattr(cls, name, _checked(kind, name, member))
        return cls

    return decorate


def _checked(kind: str, name: str, method: Any) -> Any:
    @functools.wraps(method)
    def call(self: Any, *given: Any) -> Any:
        check_call(kind, name, given)
        return method(self, *given)

    return call


@like_the_real("Runtime")
class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False
        self._cuda: HostCuda = MODULE.cuda

    @property
    def num_DLA_cores(self) -> int:
        return 0

    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        try:
            if content[24] != 10 and not self.engine_host_code_allowed:
                raise ValueError("The engine plan file is not compatible with this version of TensorRT")
            size = int.from_bytes(content[28:32], "little")
            return Engine(
                onnx.load_from_string(content[32 + size :]),
                json.loads(content[32 : 32 + size]),
                self._logger,
                self._cuda,
            )
        except Exception as error:
            self._logger.log(real.ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
            return None


@like_the_real("ICudaEngine")
class Engine:
    def __init__(self, model: onnx.ModelProto, about: dict[str, Any], logger: Any, cuda: HostCuda) -> None:
        onnx.checker.check_model(model)
        self._about, self._logger, self._cuda = about, logger, cuda
        self._evaluator = ReferenceEvaluator(model)
        graph = model.graph
        self._types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
        self._inputs = [value.name for value in graph.input]
        self._outputs = [value.name for value in graph.output]
        self._profiles = about.get("profiles") or [{}]
        self._budget = 0

    num_io_tensors = property(lambda self: len(self._types))
    num_optimization_profiles = property(lambda self: len(self._profiles))
    streamable_weights_size = property(lambda self: self._about.get("streamable", 0))

    def _set_budget(self, budget: int) -> None:
        if budget < self._about.get("least_budget", 0):
            self._logger.log(real.ILogger.Severity.ERROR, "the budget is too small")
        else:
            self._budget = budget

    weight_streaming_budget_v2 = property(lambda self: self._budget, _set_budget)

    def get_weight_streaming_automatic_budget(self) -> int:
        return int(self._about["streamable"] // 2)

    def get_tensor_name(self, index: int) -> str:
        return list(self._types)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return real.TensorIOMode.INPUT if name in self._inputs else real.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return real.DataType.__members__[_TYPES[self._types[name].elem_type]]

    def get_tensor_shape(self, name: str) -> Any:
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in self._types[name].shape.dim)

    def get_tensor_format_desc(self, name: str) -> str:
        if name in self._about.get("vectors", {}):
            return "Thirty-two wide channel vectorized row major INT8 format (kCHW32)"
        return str(self._about.get("formats", {}).get(name, "Row major linear FP32 format (kLINEAR)"))

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return 1 if name in self._about.get("vectors", {}) else -1

    def get_tensor_components_per_element(self, name: str) -> int:
        return int(self._about.get("vectors", {}).get(name, 1))

    def get_tensor_location(self, name: str) -> Any:
        on_host = name in self._about.get("shape_tensors", ())
        return real.TensorLocation.HOST if on_host else real.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return self._profiles[profile][name]

    def get_tensor_profile_values(self, profile: int, name: str) -> list[Any]:
        return self._profiles[profile].get(f"{name} values", [])

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return 1000 * (profile + 1)

    def create_execution_context(self, strategy: Any) -> Context:
        return Context(self, strategy)


@like_the_real("IExecutionContext")
class Context:
    def __init__(self, engine: Engine, strategy: Any) -> None:
        self._engine = engine
        self._needs_memory = strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory = 0
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        # The bindings keep each allocator that they were ever given.
        self._kept: list[Any] = []
        self._is_captured = False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        if profile in self._engine._about.get("refused_profiles", ()):
            self._engine._logger.log(real.ILogger.Severity.ERROR, "out of memory")
            raise RuntimeError("Error in set optimization profile async.")
        self._profile = profile
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self._engine.get_device_memory_size_for_profile_v2(self._profile)
        self._memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self._is_captured, "the graph that was captured from this context is undefined from here on"
        bounds = self._engine._profiles[self._profile].get(name)
        if bounds and not all(low <= dim <= high for low, dim, high in zip(bounds[0], shape, bounds[2], strict=True)):
            self._engine._logger.log(real.ILogger.Severity.ERROR, "Static dimension mismatch while setting input shape")
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert not self._is_captured, "the graph that was captured from this context is undefined from here on"
        on_device = name not in self._engine._about.get("shape_tensors", ())
        assert not on_device or address % 256 == 0, f"{name} is not aligned"
        self._addresses[name] = address
        return address != 0

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        self._kept.append(allocator)
        return True

    def infer_shapes(self) -> list[str]:
        missing = [name for name in self._engine._inputs if name not in self._shapes or name not in self._addresses]
        if not missing:
            try:
                self._evaluate(values=False)
            except TypeError as error:
                raise RuntimeError("Error while inferring shapes") from error
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._engine._about.get("data_dependent", ()):
            return tuple(-1 for _ in self._engine._types[name].shape.dim)
        return tuple(self._evaluate(values=False)[name].shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert not self._needs_memory or self._memory
        capturing = self._engine._cuda.capturing.get(stream)
        if capturing is not None:
            self._is_captured = True
            # What a graph holds on to: shapes and addresses of now.
            capturing.append(functools.partial(self._execute, dict(self._shapes), dict(self._addresses)))
            return True
        return self._execute(self._shapes, self._addresses)

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> bool:
        try:
            results = self._evaluate(values=True, shapes=shapes, addresses=addresses)
        except Exception as error:
            self._engine._logger.log(real.ILogger.Severity.ERROR, f"IExecutionContext::enqueueV3: {error}")
            return False
        for name, array in results.items():
            address = addresses.get(name, 0)
            if name in self._allocators:
                address = self._allocators[name].reallocate_output_async(name, 0, max(array.nbytes, 1), 256, 0)
                if not address:
                    self._engine._logger.log(real.ILogger.Severity.ERROR, f"no memory for output {name}")
                    return False
                self._allocators[name].notify_shape(name, array.shape)
            ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return True

    def _evaluate(
        self, *, values: bool, shapes: dict[str, Any] | None = None, addresses: dict[str, int] | None = None
    ) -> dict[str, Any]:
        shapes, addresses = shapes or self._shapes, addresses or self._addresses
        feeds = {}
        for name in self._engine._inputs:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(self._engine._types[name].elem_type)
            feeds[name] = array = np.ones(shapes[name], dtype)
            if values or name in self._engine._about.get("shape_tensors", ()):
                ctypes.memmove(array.ctypes.data, addresses[name], array.nbytes)
        return dict(zip(self._engine._outputs, self._engine._evaluator.run(None, feeds), strict=True))


class _Module(ModuleType):
    cuda: HostCuda


MODULE = _Module("tensorrt")
MODULE.__spec__ = ModuleSpec("tensorrt", None)
for _name in ("ILogger", "IOutputAllocator", "TensorIOMode", "TensorLocation",
              "ExecutionContextAllocationStrategy", "get_plugin_registry"):  # fmt: skip
    setattr(MODULE, _name, getattr(real, _name))
MODULE.__dict__.update(__version__="10.3.0.26", Runtime=Runtime, init_libnvinfer_plugins=lambda log, namespace: True)
