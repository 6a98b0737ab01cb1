"""What this package offers to Trivet. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    """The one backend of this package."""
    return (
        BackendPlugin(
            name="pytorch",
            factory="trivet_backend_torch.backend:TorchBackend",
            description="PyTorch: TorchScript, torch.export, AOTInductor, eager models, TorchServe's handlers",
            platforms=("pytorch_libtorch",),
            model_filenames=("model.pt", "model.pt2", "model.mar", "model.tar.gz", "MAR-INF"),
            config_fields=(
                "runtime",
                "optimization.cuda.graphs",
                "optimization.cuda.graph_spec.batch_size",
                "optimization.cuda.graph_spec.input",
                "optimization.input_pinned_memory",
                "optimization.output_pinned_memory",
            ),
            requires=("torch",),
        ),
    )
