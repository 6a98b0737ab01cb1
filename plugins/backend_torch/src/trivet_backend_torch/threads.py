"""What PyTorch has once per process, and what it has once per thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trivet.backend import ModelContext

from trivet_backend_torch.allocation import keep_freed_memory
from trivet_backend_torch.runtime import DEFAULT_THREADS, describe, set_once, torch
from trivet_backend_torch.settings import Settings


def apply_to_process(context: ModelContext, settings: Settings) -> None:
    """What PyTorch has once per process. The first model that asks decides."""
    keep_freed_memory()
    wanted: tuple[tuple[str, Any, Callable[[Any], Any]], ...] = (
        ("INTER_OP_THREAD_COUNT", settings.inter_op_threads or None, torch.set_num_interop_threads),
        ("DISABLE_CUDNN", None if settings.cudnn else True, lambda _: torch._C._set_cudnn_enabled(False)),
        ("ENABLE_TENSOR_FUSER", settings.tensor_fuser, torch._C._jit_set_texpr_fuser_enabled),
        ("ENABLE_JIT_PROFILING", settings.jit_profiling, torch._C._jit_set_profiling_mode),
        ("ENABLE_JIT_EXECUTOR", settings.jit_executor, torch._C._jit_set_profiling_executor),
    )
    for name, value, apply in wanted:
        if value is not None:
            try:
                set_once(name, value, apply, context.name, context.logger)
            except RuntimeError as error:  # the inter-op pool exists already
                context.logger.warning(
                    "model '%s' sets %s, which has no effect: %s", context.name, name, describe(error)
                )


def prepare_thread(settings: Settings) -> None:
    """What PyTorch has per thread: threads inside an operator (OpenMP), and TorchScript's optimizing executor."""
    torch.set_num_threads(settings.intra_op_threads or DEFAULT_THREADS)
    torch._C._set_graph_executor_optimize(settings.optimized_execution)
