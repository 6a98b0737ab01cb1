"""A session of ONNX Runtime for one instance: where its file is, how it is built, and what it really runs on."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivet.backend import InstanceKind, ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError

from trivet_backend_onnx import providers
from trivet_backend_onnx.providers import Provider, execution_providers
from trivet_backend_onnx.runtime import describe, load_cuda, load_tensorrt, ort
from trivet_backend_onnx.settings import EXTENSIONS, SessionSettings

DEFAULT_MODEL_FILENAME = "model.onnx"

_PACKAGES = {
    providers.CUDA: "pip install 'trivet-backend-onnx[gpu]'",
    # The provider is linked against libnvinfer.so.10.
    providers.TENSORRT: "pip install 'trivet-backend-onnx[gpu]' 'tensorrt<11'",
    providers.OPENVINO: "pip install onnxruntime-openvino",
}

# OpenVINO's sessions cannot be created side by side.
_openvino_lock = threading.Lock()

_profiles = itertools.count()

_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"


def model_file(context: ModelContext) -> Path:
    """The ONNX file of a model version: ``model.onnx``, or the file that ``default_model_filename`` names.

    Where that is a folder, ``model.onnx`` in it, with its external data beside it.

    Raises :class:`~trivet.errors.UnavailableError` where there is none.
    """
    path = context.version_path / (context.default_model_filename or DEFAULT_MODEL_FILENAME)
    if path.is_dir():
        path /= DEFAULT_MODEL_FILENAME
    if not path.is_file():
        found = sorted(str(p.relative_to(context.version_path)) for p in context.version_path.glob("**/*.onnx"))
        raise UnavailableError(
            f"unable to find '{path}' for model '{context.name}'; set default_model_filename or rename the file"
            f" ({'ONNX files there: ' + ', '.join(found) if found else 'there is no ONNX file'})"
        )
    return path


def create_session(
    context: ModelContext,
    settings: SessionSettings,
    path: Path,
    kind: InstanceKind,
    device_id: int = 0,
    *,
    used_by: str = "",
) -> Any:
    """Build an ``onnxruntime.InferenceSession``. Where ``used_by`` names who is going to use it, log what it runs on.

    Raises :class:`~trivet.errors.UnavailableError` where a GPU or an accelerator is asked for and not really used, and
    :class:`~trivet.errors.InvalidArgumentError` for a file that ONNX Runtime refuses.
    """
    wanted = execution_providers(context, kind, device_id)
    if not settings.captures_graphs:
        wanted = providers.without_graphs(wanted)
    _check_available(context, wanted)
    complaints = load_cuda() if kind == "GPU" else ()
    if any(name == providers.TENSORRT for name, _ in wanted):
        load_tensorrt()
    options = _session_options(context, settings)
    if settings.profile_directory is not None:
        _profile(options, settings.profile_directory, context)
    try:
        if any(name == providers.OPENVINO for name, _ in wanted):
            with _openvino_lock:
                session = _open(path, options, wanted)
        else:
            session = _open(path, options, wanted)
    except Exception as error:
        raise InvalidArgumentError(
            f"unable to load model '{context.name}' version {context.version}: {describe(error)}{_advice(error)}"
        ) from error
    used: list[str] = session.get_providers()
    _check_used(context, wanted, used, complaints)
    if used_by:
        context.logger.info("%s runs on %s", used_by, _placement(session, used, device_id))
    return session


def _profile(options: Any, directory: Path, context: ModelContext) -> None:
    """Let a session write what each operator took; ONNX Runtime adds the date, and writes when the session is freed.

    Raises :class:`~trivet.errors.UnavailableError` where nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"the profile of model '{context.name}' cannot be written to '{directory}' ({error.strerror}); choose"
            " another folder with --backend-config=onnxruntime,profile-directory=..., or leave enable_profiling out"
        ) from error
    # Sessions that are made in the same second need names that differ.
    name = re.sub(r"[^\w.-]", "_", context.name)
    prefix = directory / f"{name}_{context.version}_{next(_profiles)}"
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    context.logger.info(
        "model '%s' version %d is profiled; when it is unloaded, the profile is in %s_DATE.json",
        context.name,
        context.version,
        prefix,
    )


def _open(path: Path, options: Any, wanted: list[Provider]) -> Any:
    # With fallback on, a provider that fails leaves a session on the CPU behind, and a line on standard output.
    return ort.InferenceSession(str(path), options, providers=wanted, enable_fallback=0)


def _session_options(context: ModelContext, settings: SessionSettings) -> Any:
    options = ort.SessionOptions()
    options.logid = context.name
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.global_thread_pool:
        options.use_per_session_threads = False
    options.execution_mode = getattr(ort.ExecutionMode, "ORT_PARALLEL" if settings.parallel else "ORT_SEQUENTIAL")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, settings.optimization)
    if settings.memory_arena is not None:
        options.enable_cpu_mem_arena = settings.memory_arena
    if settings.memory_pattern is not None:
        options.enable_mem_pattern = settings.memory_pattern
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    for key, value in settings.config_entries:
        options.add_session_config_entry(key, value)
    for library in settings.op_libraries:
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            raise InvalidArgumentError(
                f"unable to load the custom operators '{library}' that model_operations.op_library_filename of model"
                f" '{context.name}' names: {describe(error)}"
            ) from error
    return options


def _check_available(context: ModelContext, wanted: list[Provider]) -> None:
    """That this build of ONNX Runtime has the providers at all; whether they work shows when a session exists."""
    available = ort.get_available_providers()
    for name, _ in wanted:
        if name not in available:
            raise UnavailableError(
                f"model '{context.name}' needs {name}, which the installed onnxruntime {ort.__version__} does not have"
                f" (it has {', '.join(available)}); uninstall it and run: {_PACKAGES[name]}{_or_cpu(name)}"
            )


def _check_used(context: ModelContext, wanted: list[Provider], used: list[str], complaints: Sequence[str]) -> None:
    """ONNX Runtime leaves out a provider whose libraries or device are missing, and goes on without it.

    ``complaints`` are what it said of CUDA's libraries, if anything.
    """
    for name, options in wanted:
        if name not in used:
            device = f" on device {options['device_id']}" if "device_id" in options else ""
            raise UnavailableError(
                f"model '{context.name}' needs {name}{device}, but ONNX Runtime fell back to {', '.join(used)}; check"
                " that the device is there (nvidia-smi), that its driver fits, and that the libraries are installed:"
                f" {_PACKAGES[name]}{_or_cpu(name)}{_said(complaints)}"
            )


def _said(complaints: Sequence[str]) -> str:
    return f" (onnxruntime {ort.__version__} says: {'; '.join(complaints)})" if complaints else ""


def _or_cpu(provider: str) -> str:
    return ", or set instance_group { kind: KIND_CPU }" if provider in (providers.CUDA, providers.TENSORRT) else ""


def _placement(session: Any, used: list[str], device_id: int) -> str:
    """The providers that execute the graph, with how many of its nodes each has, for the log."""
    nodes: Counter[str] = Counter()
    # Since ONNX Runtime 1.24; before, only the providers are known.
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    for subgraph in assignment() if assignment else ():
        nodes[subgraph.ep_name] += len(subgraph.get_nodes())
    parts: list[str] = []
    for name in used:
        device = f" (device {device_id})" if name in (providers.CUDA, providers.TENSORRT) else ""
        count = f": {nodes[name]} nodes" if nodes else ""
        parts.append(f"{name}{device}{count}")
    return ", ".join(parts)


def _advice(error: Exception) -> str:
    """How to mend what most often is wrong with a file."""
    text = str(error)
    if "opset" in text or "IR version" in text:
        return (
            f" -- this is onnxruntime {ort.__version__}: upgrade it, or export the model again for an older opset or IR"
            " version"
        )
    if any(sign in text for sign in ("bad_alloc", "Failed to allocate memory", "out of memory")):
        return " -- the machine, or its GPU, has too little memory left for the model"
    if any(sign in text for sign in ("Protobuf parsing failed", "No graph was found", "does not have a graph")):
        return " -- the file is damaged, incomplete (a Git LFS pointer?) or no ONNX model"
    if "ai.onnx.contrib" in text or "com.microsoft.extensions" in text:
        return (
            " -- run: pip install 'trivet-backend-onnx[extensions]', and set model_operations { op_library_filename:"
            f' "{EXTENSIONS}" }}'
        )
    if "is not a registered function/op" in text or "No Op registered" in text:
        return " -- name the library with the custom operators in model_operations { op_library_filename }"
    if "TensorRT libraries" in text:
        return (
            " -- put the libraries of TensorRT 10 where the loader finds them (pip install 'tensorrt<11', or"
            " LD_LIBRARY_PATH), or leave the accelerator out"
        )
    return ""
