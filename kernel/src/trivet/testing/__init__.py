"""Run an engine or a whole server inside a test, in a few lines.

For the tests of plugins, yours included: :func:`running_engine` needs no socket, :func:`running_server` has real ones
on free ports of the loopback interface; :class:`Simulation` is a scheduler on a clock that the test turns, and
:func:`running_instance` a backend's instance without an engine.
"""

from trivet.testing.contexts import model_context, running_instance
from trivet.testing.running import RunningServer, running_engine, running_server
from trivet.testing.simulation import SimulatedInstance, Simulation

__all__ = [
    "RunningServer",
    "SimulatedInstance",
    "Simulation",
    "model_context",
    "running_engine",
    "running_instance",
    "running_server",
]
