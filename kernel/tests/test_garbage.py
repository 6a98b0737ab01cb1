"""What was set aside is still freed when it is dropped, and what came later is freed without walking it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from time import perf_counter_ns

import pytest
from trivet import garbage


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(garbage, "_set_aside_ns", 0)
    yield
    gc.unfreeze()


def test_a_cycle_that_was_set_aside_is_freed() -> None:
    made = perf_counter_ns()
    cycle = Cycle()
    alive = weakref.ref(cycle)
    garbage.set_aside()
    del cycle
    gc.collect()
    assert alive() is not None
    garbage.collect(made)
    assert alive() is None
    assert gc.get_freeze_count() > 0


def test_what_came_later_is_freed_and_the_rest_stays_aside() -> None:
    garbage.set_aside()
    aside = gc.get_freeze_count()
    made = perf_counter_ns()
    cycle = Cycle()
    alive = weakref.ref(cycle)
    del cycle
    garbage.collect(made)
    assert alive() is None
    # Objects that were set aside may be freed by their reference counts; none is added.
    assert gc.get_freeze_count() <= aside
