"""What this package offers to Trivet."""

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl

TRIVET_API_VERSION = 1


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    return (
        BackendPlugin(
            name="llamacpp",
            factory="trivet_backend_llamacpp.backend:LlamaBackend",
            description="Language models in GGUF files, with continuous batching",
            model_filenames=("model.gguf",),
            requires=("cyllama",),
        ),
    )
