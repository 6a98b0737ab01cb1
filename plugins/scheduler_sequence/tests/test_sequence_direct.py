"""The direct strategy: a sequence is a row of its instance's batches for as long as it lives."""

from __future__ import annotations

import pytest
from sequence_simulation import CONTROLS, World


def test_sequences_take_the_lowest_free_rows_of_all_instances() -> None:
    world = World("direct {}", instances=2)
    for id in (1, 2, 3, 4):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert world.batches == [["1a"], ["2a"], [None, "3a"], [None, "4a"]]


def test_a_row_without_a_request_is_filled_and_not_ready() -> None:
    world = World("direct {}" + CONTROLS)
    for id in (1, 2, 3):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    world.send("3b", 3, end=True)
    world.run(10)
    assert world.batches == [["1a"], [None, "2a", "3a"], [None, None, "3b"]]
    assert [{name: value for name, [value] in row.items()} for row in world.rows[-1]] == [
        {"x": 0, "START": 0, "END": 0, "READY": 0, "CORRID": 0},
        {"x": 0, "START": 0, "END": 0, "READY": 0, "CORRID": 0},
        {"x": 0, "START": 0, "END": 1, "READY": 1, "CORRID": 3},
    ]


def test_a_batch_reaches_no_further_than_its_last_request() -> None:
    world = World("direct {}")
    for id in (1, 2, 3):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    world.send("1b", 1)
    world.run(10)
    assert world.batches[-1] == ["1b"]


def test_a_row_is_given_to_the_next_sequence_when_one_ends() -> None:
    world = World("direct {}", max_batch_size=2)
    for id in (1, 2, 3):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert world.batches == [["1a"], [None, "2a"]]
    world.send("1b", 1, end=True)
    world.run(10)
    assert world.batches[2:] == [["1b"], ["3a"]]


def test_requests_of_another_shape_wait_for_the_next_batch() -> None:
    world = World("direct {}", dims=-1)
    world.send("1a", 1, start=True)
    world.send("2a", 2, start=True, size=3)
    world.send("3a", 3, start=True, size=3)
    world.send("4a", 4, start=True, size=2)
    world.run(10)
    assert world.batches == [["1a"], [None, "2a", "3a", None], [None, None, None, "4a"]]


DELAYED = "direct { max_queue_delay_microseconds: 5000 minimum_slot_utilization: 0.6 }"


def test_a_batch_waits_until_enough_slots_are_used() -> None:
    world = World(DELAYED)
    for id in (1, 2, 3):
        assert world.batches == []
        world.send(f"{id}a", id, start=True)
    assert world.batches == [["1a", "2a", "3a"]]


def test_a_batch_waits_no_longer_than_the_delay() -> None:
    world = World(DELAYED)
    world.send("1a", 1, start=True)
    world.run(3)
    world.send("2a", 2, start=True)
    world.run(1.9)
    assert world.batches == []
    world.run(0.2)
    assert world.batches == [["1a", "2a"]]


@pytest.mark.parametrize(
    "batching", ["direct { max_queue_delay_microseconds: 5000 }", "direct { minimum_slot_utilization: 0.6 }", ""]
)
def test_a_delay_needs_both_of_its_fields(batching: str) -> None:
    world = World(batching)
    world.send("1a", 1, start=True)
    assert world.batches == [["1a"]]


def test_a_model_that_does_not_batch_takes_one_request_at_a_time() -> None:
    world = World("direct {}" + CONTROLS, max_batch_size=0)
    world.send("1a", 1, start=True)
    world.send("2a", 2, start=True)
    world.run(10)
    assert world.batches == [["1a"]]
    world.send("1b", 1, end=True)
    world.run(10)
    assert world.batches == [["1a"], ["1b"], ["2a"]]
