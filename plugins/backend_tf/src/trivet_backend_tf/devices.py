"""Where a session computes, and with which threads.

Each session is told which devices it may see. One on the CPU sees no GPU, so that none of a GPU's memory is taken for
it; one on a GPU sees them all, as TensorFlow cannot show different GPUs to different sessions, and its graph is placed
on the one that it is for.
"""

from __future__ import annotations

import threading
from typing import Any

from trivet.backend import InstanceContext, ModelContext
from trivet.errors import UnavailableError

from trivet_backend_tf.runtime import tf
from trivet_backend_tf.settings import AUTO_MIXED_PRECISION, GPU_IO, Settings

_CUDA_INSTALL = (
    "install a TensorFlow with CUDA (pip uninstall tensorflow-cpu, then pip install 'trivet-backend-tf[gpu]'), check"
    " the driver with nvidia-smi, or set instance_group { kind: KIND_CPU }"
)

_CPU = "/device:CPU:0"

_lock = threading.Lock()
_pools: dict[str, tuple[int, str]] = {}
"""Sizes of the pools of threads that TensorFlow has once per process, and the model that decided."""


def start_pools(settings: Settings, context: ModelContext) -> None:
    """Start TensorFlow's pools of threads, if no model has before, with the sizes that this one wants.

    They are made by the first session of the process and then stay. That must not be one on an instance's thread, to
    whose cores they would be bound with it. A later model that asks for other sizes is told in the log.
    """
    wanted = {"TF_NUM_INTRA_THREADS": settings.intra_op_threads}
    if not settings.per_session_threads and settings.inter_op_threads != 1:
        wanted["TF_NUM_INTER_THREADS"] = settings.inter_op_threads
    with _lock:
        if not _pools:
            tf.compat.v1.Session(graph=tf.Graph(), config=_pool_config(**wanted)).close()
            _pools.update({"TF_NUM_INTER_THREADS": (0, context.name)})
            _pools.update({name: (size, context.name) for name, size in wanted.items()})
            return
        differing = [name for name, size in wanted.items() if size and size != _pools[name][0]]
    for name in differing:
        size, model = _pools[name]
        context.logger.warning(
            "model '%s' sets %s to %d, which has no effect: TensorFlow has one such pool of threads per process, and"
            " model '%s', which was loaded first, made it %s; set --backend-config=tensorflow,%s=%d for all models%s",
            context.name,
            name,
            wanted[name],
            model,
            size or "as large as TensorFlow likes",
            name,
            wanted[name],
            ", or TF_USE_PER_SESSION_THREADS" if name == "TF_NUM_INTER_THREADS" else "",
        )


def _pool_config(TF_NUM_INTRA_THREADS: int, TF_NUM_INTER_THREADS: int = 0) -> Any:  # noqa: N803 - Triton's names
    return tf.compat.v1.ConfigProto(
        device_count={"GPU": 0},
        intra_op_parallelism_threads=TF_NUM_INTRA_THREADS,
        inter_op_parallelism_threads=TF_NUM_INTER_THREADS,
    )


def session_config(settings: Settings, instance: InstanceContext) -> Any:
    """A ``ConfigProto`` for an instance's session."""
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=settings.soft_placement,
        intra_op_parallelism_threads=settings.intra_op_threads,
    )
    # A thread pool of the process runs where its threads do; an instance that is bound to cores has one of its own.
    if settings.per_session_threads or (instance.host_policy.binds and settings.inter_op_threads != 1):
        config.use_per_session_threads = True
        config.inter_op_parallelism_threads = settings.inter_op_threads
    if instance.kind == "CPU":
        config.device_count["GPU"] = 0
    else:
        fraction = settings.gpu_memory_fraction
        config.gpu_options.allow_growth = fraction == 0
        config.gpu_options.per_process_gpu_memory_fraction = fraction
        if AUTO_MIXED_PRECISION in settings.accelerators:
            rewriting = config.graph_options.rewrite_options
            rewriting.meta_optimizer_iterations = type(rewriting).ONE
            rewriting.auto_mixed_precision = type(rewriting).ON
    optimizing = config.graph_options.optimizer_options
    if settings.jit_level < 0:
        optimizing.global_jit_level = type(optimizing).OFF
    elif settings.jit_level > 0:
        optimizing.global_jit_level = type(optimizing).ON_1 if settings.jit_level == 1 else type(optimizing).ON_2
    return config


def place(graph_def: Any, instance: InstanceContext) -> None:
    """Put a graph on the device of its instance, whatever machine it was saved on; what it wants on a CPU stays there.

    With ``KIND_MODEL`` the graph decides.
    """
    if instance.kind == "MODEL":
        return
    device = _CPU if instance.kind == "CPU" else f"/device:GPU:{instance.device_id}"
    for node in graph_def.node:
        node.device = _CPU if "cpu" in node.device.lower() else device
    for function in graph_def.library.function:
        for node in function.node_def:
            # The rest goes where the function is called.
            node.device = _CPU if "cpu" in node.device.lower() else ""


def check_device(settings: Settings, instance: InstanceContext, context: ModelContext) -> None:
    """Raise :class:`~trivet.errors.UnavailableError` where the instance's GPU is not there."""
    if instance.kind == "CPU":
        if settings.accelerators:
            context.logger.warning(
                "model '%s': GPU Execution Accelerator will be ignored for model instance on CPU", context.name
            )
        return
    if GPU_IO in settings.accelerators:
        context.logger.info(
            "model '%s' asks for gpu_io, which has no effect: TensorFlow's sessions take and give host arrays",
            context.name,
        )
    if instance.kind == "MODEL":
        return
    gpus = len(tf.config.list_physical_devices("GPU"))
    if instance.device_id >= gpus:
        built = "finds no usable GPU" if tf.test.is_built_with_cuda() else "is built without CUDA"
        raise UnavailableError(
            f"model '{context.name}' needs GPU {instance.device_id}, and TensorFlow {tf.__version__}"
            f" {f'sees {gpus}' if gpus else built}; {_CUDA_INSTALL}"
        )
