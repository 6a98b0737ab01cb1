"""What this package offers to Trivet. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    """The one backend of this package."""
    return (
        BackendPlugin(
            name="tensorflow",
            factory="trivet_backend_tf.backend:TensorFlowBackend",
            description="TensorFlow: SavedModels and GraphDefs",
            platforms=("tensorflow_savedmodel", "tensorflow_graphdef"),
            # The third is a SavedModel whose folder is the version itself, as TensorFlow Serving has it.
            model_filenames=("model.savedmodel", "model.graphdef", "saved_model.pb"),
            config_fields=(
                "optimization.execution_accelerators.cpu_execution_accelerator",
                "optimization.execution_accelerators.gpu_execution_accelerator",
                "optimization.graph.level",
            ),
            requires=("tensorflow",),
        ),
    )
