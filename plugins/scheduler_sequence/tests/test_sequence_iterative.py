"""Iterative sequences: one request that the model executes as often as it needs, batched with others step by step."""

from __future__ import annotations

import pytest
from sequence_simulation import CONTROLS, World
from trivet.errors import InvalidArgumentError

ITERATIVE = "iterative_sequence: true oldest { max_candidate_sequences: 4 }" + CONTROLS


def test_a_request_without_an_id_is_a_sequence_of_its_own() -> None:
    world = World(ITERATIVE, steps=3)
    world.send("a")
    world.run(0.5)
    world.send("b")
    world.run(10)
    assert world.batches == [["a"], ["b", "a"], ["b", "a"], ["b"]]
    assert [[row["START"] + row["CORRID"] for row in rows] for rows in world.rows] == [
        [[1, 1]],
        [[1, 2], [0, 1]],
        [[0, 2], [0, 1]],
        [[0, 2]],
    ]
    assert world.answers == {"a": [None], "b": [None]}


def test_a_slot_is_free_when_its_request_is_answered() -> None:
    world = World(ITERATIVE.replace("sequences: 4", "sequences: 1"), steps=2)
    for tag in "abc":
        world.send(tag)
    world.run(10)
    assert world.batches == [["a"], ["a"], ["b"], ["b"], ["c"], ["c"]]


def test_a_cancelled_request_is_executed_no_more() -> None:
    world = World(ITERATIVE, steps=100)
    request = world.send("a")
    world.run(2.5)
    world.cancel(request)
    world.run(10)
    assert len(world.batches) == 3
    assert world.scheduler.queued == 0


def test_a_step_that_waits_is_cancelled_at_once() -> None:
    world = World(ITERATIVE, steps=2, max_batch_size=1)
    first, second = world.send("a"), world.send("b")
    world.run(1.5)
    assert world.batches == [["a"], ["b"]]
    world.cancel(first)
    world.cancel(second)
    world.run(10)
    assert world.batches == [["a"], ["b"]]


def test_an_id_of_the_clients_must_be_started_and_ends_with_its_request() -> None:
    world = World(ITERATIVE, steps=2)
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("a", 77)
    world.send("b", 77, start=True)
    world.run(10)
    assert world.batches == [["b"], ["b"]]
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("c", 77)


def test_direct_rows_of_iterative_sequences_stay_where_they_are() -> None:
    world = World("iterative_sequence: true direct {}", steps=3)
    world.send("a")
    world.send("b")
    world.run(10)
    assert world.batches == [["a"], ["a", "b"], ["a", "b"], [None, "b"]]


def test_a_model_of_ordinary_sequences_cannot_take_a_request_again() -> None:
    world = World("oldest {}")
    with pytest.raises(InvalidArgumentError, match="needs 'iterative_sequence'"):
        world.scheduler.reschedule(world.send("a", 1, start=True))


def test_a_request_that_comes_back_late_goes_on_when_it_does() -> None:
    """Its caller reads slowly; the others of its batch went on without it."""
    world = World(ITERATIVE, steps=3)
    late = world.send("a")
    world.hold(late)
    world.send("b")
    world.run(10)
    assert world.batches == [["a"], ["b"], ["b"], ["b"]]
    world.let_go(late)
    world.run(10)
    assert world.batches[4:] == [["a"], ["a"]]
    assert world.answers == {"a": [None], "b": [None]}


def test_a_request_that_is_cancelled_instead_of_coming_back_frees_its_slot() -> None:
    world = World(ITERATIVE.replace("sequences: 4", "sequences: 1"), steps=3)
    late = world.send("a")
    world.hold(late)
    world.run(5)
    world.send("b")
    world.run(5)
    assert world.batches == [["a"]]
    world.cancel(late)
    world.run(10)
    assert world.batches == [["a"], ["b"], ["b"], ["b"]]
