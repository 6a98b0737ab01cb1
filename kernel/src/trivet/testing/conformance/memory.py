"""The kit for memory providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from trivet.datatypes import BYTES, FP32
from trivet.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, TrivetError
from trivet.hookspecs import MemoryPlugin, Offer
from trivet.memory import MemoryProvider
from trivet.options import Settings
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor, object_array
from trivet.testing.conformance import leaks
from trivet.testing.conformance.rules import PluginRules, offered, require

_PROVIDER = "trivet.memory.MemoryProvider"
_SLICE = "trivet.memory.RegionSlice"


@dataclass(frozen=True, slots=True)
class ClientMemory:
    """Memory that a client made."""

    details: Mapping[str, Any]
    """What the client tells the server beside name and size: ``key``, ``offset``; a handle."""
    content: Callable[[], bytes]
    """Reads what is in it, as the client does."""


class MemoryConformance(PluginRules, ABC):
    """Registers memory that the author makes as a client would, and reads and writes it through the provider."""

    memory: ClassVar[str]
    """The name under which the plugin offers the provider."""

    @abstractmethod
    def client_memory(self, content: bytes) -> AbstractContextManager[ClientMemory]:
        """Make memory with that content, as a client does, and free it at the end."""

    def test_a_region_is_registered_listed_and_forgotten(self) -> None:
        """One by one and all together; a name that is not there is nothing to forget."""
        with self._provider() as provider, self.client_memory(bytes(16)) as memory:
            for name in ("a", "b", "c"):
                provider.register(name, 16, memory.details)
            listed = provider.regions()
            require(
                listed.keys() == {"a", "b", "c"}, "regions() has what is registered", _PROVIDER, f"{sorted(listed)}"
            )
            status = listed["a"]
            require((status.name, status.byte_size) == ("a", 16), "a status has name and size", _PROVIDER, repr(status))
            _expect(AlreadyExistsError, lambda: provider.register("a", 16, memory.details), "a name is registered once")
            provider.unregister("a")
            require("a" not in provider and "b" in provider, "unregister(name) forgets one region", _PROVIDER)
            provider.unregister("never registered")
            provider.unregister(None)
            require(not provider.regions() and "b" not in provider, "unregister(None) forgets all regions", _PROVIDER)
            _expect(NotFoundError, lambda: provider.slice("a", 0, 4), "a region that is not registered has no part")

    def test_a_part_stays_within_its_region(self) -> None:
        """Whatever a client asks for."""
        with self._provider() as provider, self.client_memory(bytes(16)) as memory:
            provider.register("r", 16, memory.details)
            for offset, size in ((0, 17), (16, 1), (12, 8), (1 << 40, 4), (0, 1 << 40)):
                rule = f"a part of a region of 16 bytes does not begin at {offset} with {size} bytes"
                _expect(InvalidArgumentError, partial(provider.slice, "r", offset, size), rule)
            part = provider.slice("r", 0, 8)
            _expect(InvalidArgumentError, lambda: part.tensor("x", FP32, (3,)).numpy(), "12 bytes do not fit 8")
            large = Tensor.from_numpy("y", np.zeros(3, np.float32))
            _expect(TrivetError, lambda: part.write(large), "an output of 12 bytes does not fit 8")
            require(memory.content() == bytes(16), "what does not fit changes nothing", _SLICE)

    def test_tensors_are_read_and_written_in_place(self) -> None:
        """Numbers and text, at any offset."""
        numbers = np.arange(4, dtype=np.float32)
        with self._provider() as provider, self.client_memory(numbers.tobytes()) as memory:
            provider.register("r", 16, memory.details)
            found = provider.slice("r", 4, 8).tensor("x", FP32, (2,)).numpy().tolist()
            require(found == [1, 2], "an input is what the client wrote", _SLICE, f"{found}, expected [1, 2]")
            written = provider.slice("r", 8, 8).write(Tensor.from_numpy("y", np.array([20, 30], np.float32)))
            require(written == 8, "write() returns the bytes written", _SLICE, str(written))
            content = np.frombuffer(memory.content(), np.float32)[:4].tolist()
            require(content == [0, 1, 20, 30], "an output is where the client reads it", _SLICE, str(content))
        with self._provider() as provider, self.client_memory(bytes(16)) as memory:
            provider.register("r", 16, memory.details)
            written = provider.slice("r", 0, 16).write(Tensor.from_numpy("y", object_array([b"ab", b"c"], (2,))))
            require(written == 11, "BYTES are written in wire layout", _SLICE, f"{written} bytes, expected 11")
            text = provider.slice("r", 0, 11).tensor("x", BYTES, (2,)).numpy().tolist()
            require(text == [b"ab", b"c"], "BYTES are read in wire layout", _SLICE, repr(text))

    def test_what_a_model_writes_into_an_input_is_its_own(self) -> None:
        """A client may ask again with what it has put there once."""
        for count in (2, 1 << 18):
            given = np.ones(count, np.float32)
            with self._provider() as provider, self.client_memory(given.tobytes()) as memory:
                provider.register("r", given.nbytes, memory.details)
                tensor = provider.slice("r", 0, given.nbytes).tensor("x", FP32, (count,))
                written = tensor.writable()
                written += 1
                require((written == 2).all(), "writable() gives an input to write into", "trivet.tensor.Tensor")
                require(memory.content()[: given.nbytes] == given.tobytes(), "the client does not see it", _SLICE)

    def test_parts_are_used_on_many_threads(self) -> None:
        """Models' threads read inputs and write outputs side by side, each in a part of its own."""
        count, size = 16, 1024
        with (
            self._provider() as provider,
            self.client_memory(bytes(count * size)) as memory,
            ThreadPoolExecutor(8) as pool,
        ):
            provider.register("r", count * size, memory.details)
            parts = [provider.slice("r", number * size, size) for number in range(count)]

            def use(number: int) -> bool:
                given = np.full(size // 4, number, np.float32)
                for _ in range(50):
                    parts[number].write(Tensor.from_numpy("y", given))
                    if not np.array_equal(parts[number].tensor("x", FP32, given.shape).numpy(), given):
                        return False
                return True

            wrong = [number for number, right in enumerate(pool.map(use, range(count))) if not right]
            require(not wrong, "parts do not disturb each other", _SLICE, f"parts {wrong}")

    def test_a_part_outlives_its_region(self) -> None:
        """A request keeps what it was granted."""
        with self._provider() as provider, self.client_memory(np.ones(2, np.float32).tobytes()) as memory:
            provider.register("r", 8, memory.details)
            part = provider.slice("r", 0, 8)
            tensor = part.tensor("x", FP32, (2,))
            provider.unregister("r")
            require(tensor.numpy().tolist() == [1, 1], "a tensor keeps its memory mapped", _SLICE)
            part.write(Tensor.from_numpy("y", np.array([5, 6], np.float32)))
            content = np.frombuffer(memory.content(), np.float32)[:2].tolist()
            require(content == [5, 6], "a part keeps its memory mapped", _SLICE, str(content))

    def test_nothing_is_left_of_what_was_unregistered(self) -> None:
        """Mappings and open files, over many regions."""
        with self._provider() as provider, self.client_memory(bytes(4096)) as memory:

            def cycle() -> None:
                provider.register("r", 4096, memory.details)
                provider.slice("r", 0, 8).tensor("x", FP32, (2,)).numpy()
                provider.unregister("r")

            for _ in range(20):
                cycle()
            before = leaks.held()
            for _ in range(200):
                cycle()
            after = leaks.held()
            found = f"{after.files - before.files} more after 200 regions"
            require(after.files - before.files < 50, "a region's files are closed with it", _PROVIDER, found)
            grown = after.resident - before.resident
            require(grown < 4 << 20, "a region's memory is freed with it", _PROVIDER, f"{grown >> 10} KiB more")

    @contextmanager
    def _provider(self) -> Iterator[MemoryProvider]:
        registry, offer = self._offered()
        provider = registry.create(offer, MemoryProvider, Settings.of(registry.options()))
        yield provider
        provider.unregister(None)

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.memory, lambda registry: registry.memory_providers)
        assert isinstance(offer, MemoryPlugin)
        return registry, offer


def _expect(error: type[TrivetError], call: Callable[[], object], rule: str) -> None:
    __tracebackhide__ = True
    try:
        call()
    except error:
        return
    except Exception as other:  # noqa: BLE001 - whatever it is, it is not what the contract says
        require(False, f"{rule}: {error.__name__}", _PROVIDER, repr(other))
    require(False, f"{rule}: {error.__name__}", _PROVIDER, "no error")
