"""The protocol extensions that this package implements, as server metadata announces them."""

from __future__ import annotations

from trivet.engine import Engine

# Shared memory, trace and logging join them when something serves them; sequence and schedule_policy come with the
# schedulers that do.
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)


def announce(engine: Engine) -> None:
    """Add the extensions to the server's, once, however many transports of the protocol there are."""
    engine.extensions += [name for name in EXTENSIONS if name not in engine.extensions]
