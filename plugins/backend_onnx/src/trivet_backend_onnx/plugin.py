"""What this package offers to Trivet. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    """The one backend of this package."""
    return (
        BackendPlugin(
            name="onnxruntime",
            factory="trivet_backend_onnx.backend:OnnxBackend",
            description="ONNX models, by ONNX Runtime on CPU, CUDA, TensorRT or OpenVINO",
            platforms=("onnxruntime_onnx",),
            model_filenames=("model.onnx",),
            # As Triton has it for this backend: one instance's inputs and outputs overlap the other's computing.
            default_cpu_instances=2,
            config_fields=(
                "model_operations.op_library_filename",
                "optimization.execution_accelerators.cpu_execution_accelerator",
                "optimization.execution_accelerators.gpu_execution_accelerator",
                "optimization.graph.level",
                "optimization.input_pinned_memory",
            ),
            requires=("onnxruntime",),
        ),
    )
