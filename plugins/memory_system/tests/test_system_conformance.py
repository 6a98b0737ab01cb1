from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from trivet.testing.conformance import MemoryConformance
from trivet.testing.conformance.memory import ClientMemory
from trivet_memory_system.shared_object import FOLDER


class TestSystemMemory(MemoryConformance):
    memory = "system"

    @contextmanager
    def client_memory(self, content: bytes) -> Iterator[ClientMemory]:
        path = FOLDER / f"trivet_conformance_{os.getpid()}"
        path.write_bytes(content)
        try:
            yield ClientMemory({"key": f"/{path.name}", "offset": 0}, path.read_bytes)
        finally:
            path.unlink()
