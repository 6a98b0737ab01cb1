"""The settings of a model's sessions, read from ``parameters`` and ``optimization`` of its configuration.

Source: README of Triton's onnxruntime_backend, "Model Config Options" and "Command line options". Each parameter can
also be given for all models by ``--backend-config=onnxruntime,NAME=VALUE``; the model's own value wins.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError
from trivet.parameters import Parameters, warn_of_similar
from trivet.signatures import DEFAULT_MAX_BATCH_SIZE

# CUDA options that Triton also takes from `parameters`; providers.py reads them.
CUDA_PARAMETERS = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream")
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_PARAMETERS = (
    "intra_op_thread_count",
    "inter_op_thread_count",
    "execution_mode",
    "enable_mem_arena",
    "enable_mem_pattern",
    "share_session_between_instances",
    "enable_profiling",
    "outputs_on_device",
    SHRINKAGE,
    *CUDA_PARAMETERS,
)
_BACKEND_OPTIONS = (*_PARAMETERS, "default-max-batch-size", "enable-global-threadpool", "profile-directory")

# Keys that go to ONNX Runtime's session as they are (onnxruntime_session_options_config_keys.h).
_CONFIG_ENTRY_PREFIXES = ("session.", "optimization.", "ep.", "mlas.")

_DEVICE_ALLOCATOR = "session.use_device_allocator_for_initializers"

EXTENSIONS = "onnxruntime_extensions"
"""The package with operators for text, images and audio. In ``op_library_filename`` its name stands for its library."""

_MAX_THREADS = 4096


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How to build the sessions of one model. ``None`` leaves a choice to ONNX Runtime, or to the kind of instance."""

    intra_op_threads: int = 0
    """0: one per physical core."""
    inter_op_threads: int = 0
    parallel: bool = False
    """Run independent branches of the graph at the same time."""
    optimization: str = "ORT_ENABLE_ALL"
    """A name of ``onnxruntime.GraphOptimizationLevel``."""
    memory_arena: bool | None = None
    """On the CPU."""
    memory_pattern: bool | None = None
    share_session: bool | None = None
    """Whether the instances on one device share a session."""
    global_thread_pool: bool = False
    """Use the pools of the process in place of the two thread counts."""
    config_entries: tuple[tuple[str, str], ...] = ()
    """Keys and values for the session."""
    shrunk_arenas: tuple[str, ...] = ()
    """Devices (``cpu:0``, ``gpu:1``) whose arenas give memory back after each run; also those of other instances."""
    op_libraries: tuple[str, ...] = ()
    """Libraries with custom operators, as the loader takes them."""
    profile_directory: Path | None = None
    """Where sessions leave a profile when they are closed; ``None``: nothing is profiled."""
    outputs_on_device: bool = False
    """Whether a GPU instance leaves outputs where they were computed."""
    captures_graphs: bool = True
    """Whether sessions capture CUDA graphs, where an accelerator is to."""

    def only_looked_at(self) -> SessionSettings:
        """The same for a session that is not going to run: without graph optimization, profile and CUDA graphs.

        Whether a model can have these shows when it is optimized.
        """
        return replace(self, optimization="ORT_DISABLE_ALL", profile_directory=None, captures_graphs=False)

    @classmethod
    def read(cls, context: ModelContext) -> SessionSettings:
        """Read and check the settings of one model.

        Raises :class:`~trivet.errors.InvalidArgumentError` naming the parameter, its value and what is allowed.
        """
        parameters = Parameters.of_model(context)
        arena = parameters.boolean("enable_mem_arena")
        shrinkage = parameters.text(SHRINKAGE)
        if shrinkage is not None:
            if not re.fullmatch(r"(cpu:0|gpu:\d+)(;(cpu:0|gpu:\d+))*", shrinkage):
                raise parameters.bad(SHRINKAGE, "a list of devices such as 'cpu:0' or 'cpu:0;gpu:0'")
            if arena is False and "cpu:" in shrinkage:
                raise parameters.bad(SHRINKAGE, "no 'cpu' device, since enable_mem_arena is off")
        # ONNX Runtime takes any text for an entry; this one is documented by Triton, so a wrong value is worth telling.
        if parameters.text(_DEVICE_ALLOCATOR) not in (None, "0", "1"):
            raise parameters.bad(_DEVICE_ALLOCATOR, "0 or 1")
        return cls(
            intra_op_threads=parameters.integer("intra_op_thread_count", 0, _MAX_THREADS),
            inter_op_threads=parameters.integer("inter_op_thread_count", 0, _MAX_THREADS),
            parallel=parameters.choice("execution_mode", {"0": False, "1": True}, default=False),
            optimization=_optimization(context),
            memory_arena=arena,
            memory_pattern=parameters.boolean("enable_mem_pattern"),
            share_session=parameters.boolean("share_session_between_instances"),
            global_thread_pool=BackendOptions.read(context).global_thread_pool is not None,
            config_entries=tuple(
                (key, value) for key, value in parameters.values.items() if key.startswith(_CONFIG_ENTRY_PREFIXES)
            ),
            shrunk_arenas=tuple(shrinkage.split(";")) if shrinkage is not None else (),
            op_libraries=tuple(
                _op_library(context, name) for name in context.config.model_operations.op_library_filename
            ),
            profile_directory=(
                BackendOptions.read(context).profile_directory if parameters.boolean("enable_profiling") else None
            ),
            outputs_on_device=bool(parameters.boolean("outputs_on_device")),
        )


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What ``--backend-config=onnxruntime,...`` says beyond the defaults of parameters."""

    default_max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    """What auto-completion gives a model that can batch; 0 leaves it without."""
    global_thread_pool: tuple[int, int] | None = None
    """Intra-op and inter-op threads of the pools that all sessions share; ``None``: every session has its own."""
    profile_directory: Path = Path()
    """Where profiles go. The operator's choice, as a model's configuration can come from a client."""

    @classmethod
    def read(cls, context: ModelContext) -> BackendOptions:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a value that an option cannot have."""
        options = Parameters.of_backend(context, "onnxruntime")
        return cls(
            default_max_batch_size=options.integer("default-max-batch-size", DEFAULT_MAX_BATCH_SIZE),
            global_thread_pool=(
                (
                    options.integer("intra_op_thread_count", 0, _MAX_THREADS),
                    options.integer("inter_op_thread_count", 0, _MAX_THREADS),
                )
                if options.boolean("enable-global-threadpool")
                else None
            ),
            profile_directory=Path(options.text("profile-directory") or tempfile.gettempdir()),
        )


def warn_of_unused(context: ModelContext, logger: logging.Logger) -> None:
    """Name the parameters that have no effect."""
    warn_of_similar(f"model '{context.name}'", context.parameters, _PARAMETERS, logger)
    warn_of_similar("--backend-config=onnxruntime", context.backend_options, _BACKEND_OPTIONS, logger)
    if BackendOptions.read(context).global_thread_pool is not None:
        for name in ("intra_op_thread_count", "inter_op_thread_count"):
            if name in context.parameters:
                logger.warning(
                    "model '%s' sets parameter '%s', which has no effect: all sessions share the global thread pools"
                    " (--backend-config=onnxruntime,enable-global-threadpool)",
                    context.name,
                    name,
                )


def _optimization(context: ModelContext) -> str:
    """The name of a ``GraphOptimizationLevel``. Source: Triton's README, ``optimization { graph { level } }``."""
    levels = {0: "ORT_ENABLE_ALL", -1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
    level = context.config.optimization.graph.level
    if level not in levels:
        raise InvalidArgumentError(
            f"optimization.graph.level of model '{context.name}' is {level}, expected -1 (basic), 0 (all),"
            " 1 (extended) or 2 (none)"
        )
    return levels[level]


def _op_library(context: ModelContext, filename: str) -> str:
    """A library with custom operators.

    An absolute path, a file of the model's folder, the package :data:`EXTENSIONS`, or a name for the loader. Raises
    :class:`~trivet.errors.InvalidArgumentError` where the package is not installed.
    """
    if filename == EXTENSIONS:
        return _extensions_library(context)
    inside = context.model_path / filename
    return str(inside) if inside.is_file() else filename


def _extensions_library(context: ModelContext) -> str:
    """The library of the installed package; its Python half, which imports more than it needs, stays out."""
    package = importlib.util.find_spec(EXTENSIONS)
    for folder in (package and package.submodule_search_locations) or ():
        for library in Path(folder).glob("_extensions_pydll*"):
            if library.suffix in (".so", ".pyd", ".dylib"):
                return str(library)
    raise InvalidArgumentError(
        f"model_operations.op_library_filename of model '{context.name}' names '{EXTENSIONS}', which is not installed;"
        " run: pip install 'trivet-backend-onnx[extensions]'"
    )
