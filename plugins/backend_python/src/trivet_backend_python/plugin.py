"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl

OFFER = BackendPlugin(
    name="python",
    factory="trivet_backend_python.backend:PythonBackend",
    description="Triton Python models (model.py) and typed Python functions, in the server's process",
    model_filenames=("model.py",),
)


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    """The one backend of this package."""
    return (OFFER,)
