"""A plan in a GPU's memory."""

from __future__ import annotations

import threading
from typing import Any

from trivet.errors import InvalidArgumentError, ResourceExhaustedError, TrivetError, UnavailableError

from trivet_backend_trt import driver, library
from trivet_backend_trt.device import Device
from trivet_backend_trt.plan import Plan
from trivet_backend_trt.settings import BUDGET, Settings, budget_bytes
from trivet_backend_trt.signature import Signature

# As in Triton: TensorRT does not deserialize side by side.
_deserializing = threading.Lock()


class Engine:
    """A deserialized plan. Several instances on one device share one: its contexts are what executes."""

    def __init__(self, plan: Plan, settings: Settings, model: str, device: Device, dla_core: int | None = None) -> None:
        """With ``device`` current on this thread; ``dla_core`` is that of a plan for NVDLA.

        Raises :class:`~trivet.errors.UnavailableError` for a plan of another version or GPU,
        :class:`~trivet.errors.ResourceExhaustedError` where it does not fit in memory, and
        :class:`~trivet.errors.InvalidArgumentError` for a damaged one and for a setting that it does not allow.
        """
        self._creating = threading.Lock()
        self._device = device
        module = library.choose(plan, settings, model)
        self.trt = trt = library.load(module)
        with _deserializing, library.collecting_errors() as errors:
            log = library.log_of(trt)
            library.register_plugins(trt, log, settings.plugins)
            self._runtime = runtime = trt.Runtime(log)
            if settings.version_compatible:
                runtime.engine_host_code_allowed = True
            if dla_core is not None:
                _set_dla_core(runtime, dla_core, model)
            free = device.free_bytes()
            # Not mapped: a file that somebody shortens meanwhile would end the process.
            content = plan.path.read_bytes()
            self._engine = runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                reason = library.reasons(errors, "no reason given")
                raise _failure(trt, runtime, plan, content, free, device.index, reason, model)
        self.signature = Signature.of(trt, self._engine)
        if settings.streaming_budget is not None:
            self._stream_weights(settings.streaming_budget, model)

    def create_context(self, strategy: str, *, graphs: bool) -> tuple[Any, Any]:
        """An ``IExecutionContext`` on the current device, and what must be there as long as it is.

        ``strategy`` is a name of ``ExecutionContextAllocationStrategy``. With ``graphs``, TensorRT for RTX is asked to
        capture its own. Raises :class:`~trivet.errors.ResourceExhaustedError` without memory for it.
        """
        trt = self.trt
        allocation = getattr(trt.ExecutionContextAllocationStrategy, strategy)
        config = None
        with self._creating, library.collecting_errors() as errors:
            if graphs and self.captures_graphs:
                config = self._engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(allocation)
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                context = self._engine.create_execution_context(config)
            else:
                context = self._engine.create_execution_context(allocation)
            if context is None:
                raise ResourceExhaustedError(
                    f"unable to create TensorRT context: {library.reasons(errors, 'no reason given')}"
                )
        return context, config

    @property
    def captures_graphs(self) -> bool:
        """Whether the library captures CUDA graphs by itself, and for any shapes (TensorRT for RTX)."""
        return hasattr(self.trt, "CudaGraphStrategy")

    def context_bytes(self, profile: int) -> int:
        """Device memory that a context needs while it executes with a profile."""
        return int(self._engine.get_device_memory_size_for_profile_v2(profile))

    def _stream_weights(self, budget: str, model: str) -> None:
        engine = self._engine
        streamable = engine.streamable_weights_size
        if not streamable:
            raise InvalidArgumentError(
                f"model '{model}' sets parameter '{BUDGET}', and its plan was not built for weight streaming; build it"
                " with: trivet trt build --weight-streaming"
            )
        wanted = budget_bytes(budget, streamable, engine.get_weight_streaming_automatic_budget())
        with library.collecting_errors() as errors:
            # The bindings do not say whether it was taken.
            engine.weight_streaming_budget_v2 = wanted
            if engine.weight_streaming_budget_v2 != wanted:
                raise InvalidArgumentError(
                    f"model '{model}' cannot have the parameter '{BUDGET}' of '{budget}' ({wanted} bytes):"
                    f" {library.reasons(errors, 'no reason given')}"
                )

    def close(self) -> None:
        """Free it, when all contexts are gone; before the runtime that made it. On any thread."""
        with self._device.current():
            self._engine = None
            self._runtime = None


def _set_dla_core(runtime: Any, core: int, model: str) -> None:
    cores = runtime.num_DLA_cores
    if core >= cores:
        raise UnavailableError(
            f"model '{model}' needs NVDLA core {core}, and this machine has {cores}; leave out secondary_devices to run"
            " on the GPU alone"
        )
    runtime.DLA_core = core


def _failure(
    trt: Any, runtime: Any, plan: Plan, content: bytes, free: int, gpu: int, reason: str, model: str
) -> TrivetError:
    """Why a plan was refused: TensorRT's own words, and what is to be done where that can be told."""
    message = f"failed to load model '{model}': unable to deserialize '{plan.path.name}': {reason}"
    if trt.__name__ in library.VERSION_COMPATIBLE_ONLY:
        message += f"; {trt.__name__} loads only plans that were built with --version-compatible"
    if plan.version and not _same_version(plan, trt.__version__):
        fix = (
            "build the plan again with the version that is installed (trivet trt build), install the version that built"
            " it, or build with --version-compatible and serve with --backend-config=tensorrt,version-compatible=true"
        )
        return UnavailableError(
            f"{message}; it was built by {plan.built_by}, and {trt.__name__} is {trt.__version__}: {fix}"
        )
    found = _diagnosis(trt, runtime, content) | _guess(reason)
    if "INSUFFICIENT_GPU_MEMORY" in found and len(content) > free:
        return ResourceExhaustedError(f"{message}; the plan has {len(content)} bytes, and {free} are free on the GPU")
    if "UNSUPPORTED_CC" in found:
        here = driver.compute_capability(gpu)
        if plan.kind == "tensorrt_rtx" and here not in library.compute_capabilities(trt):
            return UnavailableError(
                f"{message}; TensorRT for RTX has no plans for compute capability {here}, which GPU {gpu} has: build"
                " one with TensorRT"
            )
        return UnavailableError(
            f"{message}; it was built for other GPUs: build it on one of the kind that serves it, or with"
            " --hardware-compatible or --compute-capability"
        )
    if found & {"OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "CUDA_ERROR"}:
        return UnavailableError(f"{message}; check the NVIDIA driver with nvidia-smi, and whether it is new enough")
    return InvalidArgumentError(f"{message}; the file is damaged, or needs plugins that are not loaded")


def _diagnosis(trt: Any, runtime: Any, content: bytes) -> set[str]:
    """Names of ``EngineInvalidityDiagnostics``, which TensorRT for RTX has."""
    if not hasattr(runtime, "get_engine_validity"):
        return set()
    _, diagnostics = runtime.get_engine_validity(content)
    return {name for name, flag in trt.EngineInvalidityDiagnostics.__members__.items() if int(flag) & int(diagnostics)}


def _guess(reason: str) -> set[str]:
    """The same from what TensorRT says, where it has nothing better."""
    words = {
        "memory": "INSUFFICIENT_GPU_MEMORY",
        "compute capability": "UNSUPPORTED_CC",
        "different models of devices": "UNSUPPORTED_CC",
        "cuda driver version": "OLD_CUDA_DRIVER",
    }
    return {name for word, name in words.items() if word in reason.lower()}


def _same_version(plan: Plan, installed: str) -> bool:
    return plan.version is not None and installed.split(".")[:3] == [str(part) for part in plan.version[:3]]
