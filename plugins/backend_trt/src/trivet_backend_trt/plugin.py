"""What this package offers to Trivet. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.hookspecs import BackendPlugin, hookimpl

from trivet_backend_trt.command import trt

if TYPE_CHECKING:
    import click


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    """The one backend of this package."""
    return (
        BackendPlugin(
            name="tensorrt",
            factory="trivet_backend_trt.backend:TensorRTBackend",
            description="TensorRT plans, by TensorRT, its lean runtime or TensorRT for RTX",
            platforms=("tensorrt_plan",),
            model_filenames=("model.plan",),
            config_fields=(
                "cc_model_filenames",
                "input.is_non_linear_format_io",
                "output.is_non_linear_format_io",
                "optimization.cuda.graphs",
                "optimization.cuda.graph_spec",
                "optimization.cuda.busy_wait_events",
                "optimization.input_pinned_memory",
                "optimization.output_pinned_memory",
                "optimization.priority",
            ),
            requires=("tensorrt|tensorrt_lean|tensorrt_rtx",),
        ),
    )


@hookimpl
def trivet_cli_commands() -> Sequence[click.Command]:
    """The one command of this package."""
    return (trt,)
