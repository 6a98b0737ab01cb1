"""Run an engine or a whole server inside a test, in a few lines.

For the tests of plugins, yours included: :func:`running_engine` needs no socket, :func:`running_server` has real ones
on free ports of the loopback interface; :class:`Simulation` is a scheduler on a clock that the test turns.
"""

from trivet.testing.running import RunningServer, running_engine, running_server
from trivet.testing.simulation import SimulatedInstance, Simulation

__all__ = ["RunningServer", "SimulatedInstance", "Simulation", "running_engine", "running_server"]
