"""The local cache: an LRU that keeps to its bytes."""

from __future__ import annotations

import gc
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trivet import datatypes
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor
from trivet_cache_local.cache import LocalCache, create


def response(size: int, name: str = "y") -> InferenceResponse:
    return InferenceResponse([Tensor.from_wire(name, datatypes.UINT8, (size,), bytes(size))])


def footprint(response: InferenceResponse) -> int:
    """What a cache counts for that response alone."""
    cache = LocalCache(1_000_000)
    cache.insert(key(0), response)
    return cache.usage.bytes


def size_of(found: InferenceResponse | None) -> int | None:
    """The bytes of a response that :func:`response` made; ``None`` for none."""
    return None if found is None else len(found.outputs[0].wire())


def key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_what_went_in_comes_out() -> None:
    cache = create({"size": "4096"})
    y = Tensor.from_wire("y", datatypes.FP32, (1, 2), bytes(range(8)))
    kept = InferenceResponse([y], parameters={"p": True})
    assert cache.lookup(key(1)) is None
    cache.insert(key(1), kept)
    found = cache.lookup(key(1))
    assert found is not None
    assert found.parameters == {"p": True}
    (output,) = found.outputs
    assert (output.name, output.datatype, output.shape, output.wire()) == ("y", datatypes.FP32, (1, 2), y.wire())
    assert cache.usage.entries == 1
    assert cache.usage.capacity_bytes == 4096
    assert 8 < cache.usage.bytes == footprint(kept) <= 4096


def test_the_least_recently_used_leaves_first() -> None:
    cache = LocalCache(3 * footprint(response(100)))
    for number in (1, 2, 3):
        cache.insert(key(number), response(100))
    cache.lookup(key(1))
    cache.insert(key(4), response(100))
    assert [cache.lookup(key(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.usage.evictions == 1


def test_what_is_larger_than_the_cache_is_not_kept_and_costs_nothing_that_is() -> None:
    cache = LocalCache(2048)
    cache.insert(key(1), response(10))
    cache.insert(key(2), response(2048))
    assert cache.lookup(key(1)) is not None
    assert cache.lookup(key(2)) is None
    assert cache.largest_response == 2048


def test_the_same_key_again_takes_the_place_of_the_first() -> None:
    cache = LocalCache(4096)
    cache.insert(key(1), response(100))
    cache.insert(key(1), latest := response(200))
    assert size_of(cache.lookup(key(1))) == 200
    assert (cache.usage.entries, cache.usage.evictions) == (1, 0)
    assert cache.usage.bytes == footprint(latest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "config didn't contain a valid 'size' field"),
        ({"bytes": "1"}, "there is no option 'bytes'"),
        ({"size": ""}, "config didn't contain a valid 'size' field"),
        ({"size": "-5"}, "config didn't contain a valid 'size' field"),
        ({"size": "12x"}, "config didn't contain a valid 'size' field"),
        ({"size": "1e6"}, "config didn't contain a valid 'size' field"),
        ({"size": "²"}, "config didn't contain a valid 'size' field"),
        ({"size": "0"}, "too small"),
        ({"size": "1023"}, "too small"),
        ({"size": "9" * 5000}, "more than any memory"),
    ],
)
def test_a_size_that_is_none_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Failed to initialize LocalCache: .*{message}"):
        create(options)


@pytest.mark.parametrize("payload", [0, 8, 1000])
def test_memory_stays_within_the_size(payload: int) -> None:
    """Measured, since what Python needs beside the tensors is most of a small entry."""
    size = 1_000_000
    cache = LocalCache(size)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(size // (payload + 300)):
            outputs = [Tensor.from_wire(f"output {number}", datatypes.UINT8, (payload, number), bytes(payload))]
            cache.insert(key(number), InferenceResponse(outputs, parameters={f"p{number}": number + 0.5}))
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.usage.evictions > 0
    assert size / 2 < used <= size


def test_entries_are_nothing_to_the_garbage_collector() -> None:
    """A full collection walks what it tracks while no request is served."""
    cache = LocalCache(10_000_000)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        cache.insert(key(number), response(10))
    for _ in range(4):  # tuples within tuples are let go of one after the other
        gc.collect()
    assert len(gc.get_objects()) - before < 100


class AgainstReference(RuleBasedStateMachine):
    """The cache and a plain model of it see the same operations."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 3000
        self.cache = LocalCache(self.size)
        self.reference: OrderedDict[bytes, InferenceResponse] = OrderedDict()

    def _weight(self) -> int:
        return sum(map(footprint, self.reference.values()))

    @rule(number=st.integers(0, 7), size=st.integers(0, 3000))
    def insert(self, number: int, size: int) -> None:
        new = response(size)
        self.cache.insert(key(number), new)
        if footprint(new) <= self.size:
            self.reference.pop(key(number), None)
            self.reference[key(number)] = new
            while self._weight() > self.size:
                self.reference.popitem(last=False)

    @rule(number=st.integers(0, 7))
    def lookup(self, number: int) -> None:
        expected = self.reference.get(key(number))
        if expected is not None:
            self.reference.move_to_end(key(number))
        assert size_of(self.cache.lookup(key(number))) == size_of(expected)

    @invariant()
    def sizes_agree(self) -> None:
        usage = self.cache.usage
        assert (usage.entries, usage.bytes) == (len(self.reference), self._weight())
        assert usage.bytes <= usage.capacity_bytes


TestAgainstReference = AgainstReference.TestCase


@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 3))
def test_every_byte_of_an_entry_is_counted(dims: list[int], outputs: int) -> None:
    array = np.zeros(dims, np.float64)
    tensors = [Tensor.from_wire(f"y{i}", datatypes.FP64, array.shape, array.tobytes()) for i in range(outputs)]
    assert footprint(InferenceResponse(tensors)) >= array.nbytes * outputs + 32
