"""Conformance kits: tests of the contract of each family of plugins, for pytest.

The author of a plugin subclasses the kit of its family, says how the plugin is reached, and runs pytest::

    from trivet.testing.conformance import BackendConformance

    class TestLinear(BackendConformance):
        backend = "linear"

        def write_model(self, folder): ...
        def inputs(self, rows, seed): ...
        def expected(self, inputs): ...

Every test says in its message which rule was broken, what was found, and where the rule is written down. The plugin is
found as a server finds it: by its entry point, so it must be installed. Needs ``pip install 'trivet-kernel[testing]'``.
"""

from trivet.testing.conformance.backend import BackendConformance
from trivet.testing.conformance.cache import CacheConformance
from trivet.testing.conformance.exporter import ExporterConformance
from trivet.testing.conformance.memory import MemoryConformance
from trivet.testing.conformance.protocol import ProtocolConformance
from trivet.testing.conformance.scheduler import SchedulerConformance
from trivet.testing.conformance.streams import Stream, StreamingBackendConformance

__all__ = [
    "BackendConformance",
    "CacheConformance",
    "ExporterConformance",
    "MemoryConformance",
    "ProtocolConformance",
    "SchedulerConformance",
    "Stream",
    "StreamingBackendConformance",
]
