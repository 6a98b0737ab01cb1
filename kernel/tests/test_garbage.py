"""What was set aside is still freed when it is dropped, and what came later is freed without walking it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_one_collection_serves_all_who_asked_before_it_began() -> None:
    requests = garbage._Requests()
    numbers = [requests.ask(made_ns) for made_ns in (7, 3, 5)]
    assert [requests.begin(number) for number in numbers] == [3, None, None]
    assert requests.begin(requests.ask(9)) == 9


def test_cycles_dropped_on_many_threads_at_once_are_freed() -> None:
    garbage.set_aside()
    alive: list[weakref.ref[Cycle]] = []

    def drop() -> None:
        cycle = Cycle()
        alive.append(weakref.ref(cycle))
        del cycle
        garbage.collect(perf_counter_ns())

    with ThreadPoolExecutor(16) as pool:
        for _ in range(64):
            pool.submit(drop)
    assert [reference() for reference in alive] == [None] * 64
