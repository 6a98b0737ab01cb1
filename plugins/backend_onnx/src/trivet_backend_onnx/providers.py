"""Which execution providers a session gets, in order of preference, and their options.

Source: Triton's README of the ONNX Runtime backend ("TensorRT optimization", "CUDA Execution Provider optimization",
"OpenVINO optimization") and ``optimization.execution_accelerators`` of the model configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from trivet.backend import InstanceKind, ModelContext
from trivet.errors import InvalidArgumentError
from trivet.parameters import Parameters

from trivet_backend_onnx.settings import CUDA_PARAMETERS

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

Provider = tuple[str, dict[str, str]]

_GPU_ACCELERATORS = ("tensorrt", "cuda")
_CPU_ACCELERATORS = ("openvino",)

# Parameters of Triton that are options of the TensorRT provider, by the kind of their value.
_TENSORRT_BOOLEANS = (
    "trt_build_heuristics_enable", "trt_context_memory_sharing_enable", "trt_cuda_graph_enable",
    "trt_detailed_build_log", "trt_dla_enable", "trt_dump_ep_context_model", "trt_dump_subgraphs",
    "trt_engine_cache_enable", "trt_engine_decryption_enable", "trt_engine_hw_compatible",
    "trt_force_sequential_engine_build", "trt_force_timing_cache", "trt_layer_norm_fp32_fallback",
    "trt_load_user_initializer", "trt_sparsity_enable", "trt_timing_cache_enable", "trt_weight_stripped_engine_enable",
)  # fmt: skip
_TENSORRT_INTEGERS = (
    "trt_auxiliary_streams", "trt_builder_optimization_level", "trt_dla_core", "trt_ep_context_embed_mode",
    "trt_max_partition_iterations", "trt_min_subgraph_size",
)  # fmt: skip
_TENSORRT_TEXTS = (
    "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_engine_decryption_lib_path", "trt_ep_context_file_path",
    "trt_extra_plugin_lib_paths", "trt_onnx_model_folder_path", "trt_op_types_to_exclude", "trt_preview_features",
    "trt_profile_max_shapes", "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_tactic_sources",
    "trt_timing_cache_path",
)  # fmt: skip
# Parameters that Triton calls otherwise than ONNX Runtime does.
_TENSORRT_RENAMED = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_PRECISIONS: Mapping[str, dict[str, str]] = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "True"},
    "BF16": {"trt_bf16_enable": "True"},
    "INT8": {"trt_int8_enable": "True"},
}

# Options of the CUDA provider, by the kind of their value; Triton has numbers for the names in the choices.
_CUDA_BOOLEANS = (
    "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_use_max_workspace", "do_copy_in_default_stream", "enable_cuda_graph",
    "enable_skip_layer_norm_strict_mode", "fuse_conv_bias", "prefer_nhwc", "tunable_op_enable",
    "tunable_op_tuning_enable", "use_ep_level_unified_stream", "use_tf32",
)  # fmt: skip
_CUDA_INTEGERS = ("gpu_mem_limit", "sdpa_kernel", "tunable_op_max_tuning_duration_ms")
_CUDA_CHOICES: Mapping[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
# Those that only the process that owns the session could give a sensible value.
_CUDA_RESERVED = ("device_id", "has_user_compute_stream", "user_compute_stream", "gpu_external_alloc",
                  "gpu_external_free", "gpu_external_empty_cache")  # fmt: skip

_OPENVINO_OPTIONS = (
    "cache_dir", "context", "device_type", "disable_dynamic_shapes", "enable_opencl_throttling", "enable_qdq_optimizer",
    "load_config", "model_priority", "num_of_threads", "num_streams", "precision",
)  # fmt: skip


def execution_providers(context: ModelContext, kind: InstanceKind, device_id: int) -> list[Provider]:
    """The providers of an instance of ``kind``, best first; ONNX Runtime's CPU kernels are always the last.

    A ``KIND_GPU`` instance has CUDA, after TensorRT where that is asked for; every other kind runs on the CPU. All
    accelerators are checked, whether or not this kind uses them. Raises :class:`~trivet.errors.InvalidArgumentError`
    for an accelerator, a parameter or a value that is not known, by name.
    """
    accelerators = context.config.optimization.execution_accelerators
    gpu, cpu = accelerators.gpu_execution_accelerator, accelerators.cpu_execution_accelerator
    _check_names(context, "gpu_execution_accelerator", (a.name for a in gpu), _GPU_ACCELERATORS)
    _check_names(context, "cpu_execution_accelerator", (a.name for a in cpu), _CPU_ACCELERATORS)

    on_device: list[Provider] = []
    # The older spelling, in `parameters` of the model.
    older = Parameters.of_model(context)
    cuda = _cuda(older, (name for name in CUDA_PARAMETERS if name in older.values))
    for accelerator in gpu:
        parameters = _parameters(context, "gpu_execution_accelerator", accelerator)
        if accelerator.name == "tensorrt":
            on_device.append((TENSORRT, {"device_id": str(device_id), **_tensorrt(parameters)}))
        else:
            cuda |= _cuda(parameters, parameters.values)
    on_device.append((CUDA, {"device_id": str(device_id), **cuda}))
    on_host: list[Provider] = [
        (OPENVINO, _openvino(_parameters(context, "cpu_execution_accelerator", accelerator))) for accelerator in cpu
    ]
    return [*(on_device if kind == "GPU" else []), *on_host, (CPU, {})]


def _check_names(context: ModelContext, field: str, names: Iterable[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise InvalidArgumentError(
                f"unknown Execution Accelerator '{name}' is requested in {field} of model '{context.name}', expected"
                f" one of {', '.join(known)}"
            )


def _parameters(context: ModelContext, field: str, accelerator: Any) -> Parameters:
    return Parameters(f"{field} '{accelerator.name}' of model '{context.name}'", dict(accelerator.parameters))


def _tensorrt(parameters: Parameters) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parameters.values.items():
        if name == "precision_mode":
            options |= parameters.choice(name, _TENSORRT_PRECISIONS, default={})
        elif name == "int8_use_native_calibration_table" or name in _TENSORRT_BOOLEANS:
            # ONNX Runtime's own spelling; its Python interface knows neither "1" nor "on".
            options[_TENSORRT_RENAMED.get(name, name)] = str(parameters.boolean(name))
        elif name == "max_workspace_size_bytes":
            options[_TENSORRT_RENAMED[name]] = str(parameters.integer(name, 0, maximum=2**64 - 1))
        elif name in _TENSORRT_INTEGERS:
            if not re.fullmatch(r"-?[0-9]{1,9}", value):
                raise parameters.bad(name, "an integer")
            options[name] = value
        elif name in _TENSORRT_TEXTS or name == "int8_calibration_table_name":
            options[_TENSORRT_RENAMED.get(name, name)] = value
        else:
            known = ("precision_mode", *_TENSORRT_RENAMED, *_TENSORRT_BOOLEANS, *_TENSORRT_INTEGERS, *_TENSORRT_TEXTS)
            raise InvalidArgumentError(
                f"unknown parameter '{name}' is provided for TensorRT Execution Accelerator;"
                f" {parameters.owner} can have {', '.join(sorted(known))}"
            )
    return options


def _cuda(parameters: Parameters, names: Iterable[str]) -> dict[str, str]:
    """An option of a newer ONNX Runtime goes on as it is; one that is not known there is refused there."""
    options: dict[str, str] = {}
    for name in names:
        if name in _CUDA_RESERVED:
            raise InvalidArgumentError(
                f"parameter '{name}' of {parameters.owner} is set by the server and cannot be given"
            )
        if name in _CUDA_BOOLEANS:
            options[name] = str(int(bool(parameters.boolean(name))))
        elif name in _CUDA_INTEGERS:
            options[name] = str(parameters.integer(name, 0, maximum=2**64 - 1))
        elif name in _CUDA_CHOICES:
            numbered = {str(number): choice for number, choice in enumerate(_CUDA_CHOICES[name])}
            named = {choice: choice for choice in numbered.values()}
            options[name] = parameters.choice(name, numbered | named, default="")
        else:
            options[name] = parameters.values[name]
    return options


# The options that have CUDA graphs captured, with the value that they then have.
_CAPTURING = {"enable_cuda_graph": "1", "trt_cuda_graph_enable": "True"}


def captures_graphs(wanted: Iterable[Provider]) -> bool:
    """Whether sessions of these providers capture CUDA graphs."""
    return any(options.get(name) == value for _, options in wanted for name, value in _CAPTURING.items())


def without_graphs(wanted: Iterable[Provider]) -> list[Provider]:
    """The same providers, which then do not."""
    return [
        (provider, {name: value for name, value in options.items() if name not in _CAPTURING})
        for provider, options in wanted
    ]


def _openvino(parameters: Parameters) -> dict[str, str]:
    options = {"device_type": "CPU"}
    for name, value in parameters.values.items():
        if name not in _OPENVINO_OPTIONS:
            raise InvalidArgumentError(
                f"unknown parameter '{name}' is provided for OpenVINO Execution Accelerator;"
                f" {parameters.owner} can have {', '.join(_OPENVINO_OPTIONS)}"
            )
        options[name] = value
    return options
