"""The protocol extensions that this package implements, as server metadata announces them."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.engine import Engine

# Sequence and schedule_policy come with the schedulers that serve them,
# kinds of shared memory with their providers.
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)


def announce(engine: Engine, memory: Iterable[str]) -> None:
    """Add the extensions to the server's, once, however many transports of the protocol there are.

    ``memory`` are the kinds of shared memory that are installed.
    """
    extensions = (*EXTENSIONS, *(f"{kind}_shared_memory" for kind in memory))
    engine.extensions += [name for name in extensions if name not in engine.extensions]
