"""The oldest strategy: next steps of different sequences are batched as they come."""

from __future__ import annotations

from sequence_simulation import World

OLDEST = "oldest { max_candidate_sequences: 8 %s }"


def test_what_comes_while_an_instance_computes_is_the_next_batch() -> None:
    world = World(OLDEST % "")
    for id in range(1, 7):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert world.batches == [["1a"], ["2a", "3a", "4a", "5a"], ["6a"]]


def test_a_sequence_has_one_step_in_a_batch() -> None:
    world = World(OLDEST % "")
    for tag in ("1a", "1b", "1c"):
        world.send(tag, 1, start=tag == "1a")
    world.send("2a", 2, start=True)
    world.run(10)
    assert world.batches == [["1a"], ["2a", "1b"], ["1c"]]


def test_only_as_many_sequences_as_there_are_candidates_are_in_progress() -> None:
    world = World("oldest { max_candidate_sequences: 2 }")
    for id in (1, 2, 3):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert world.batches == [["1a"], ["2a"]]
    world.send("2b", 2, end=True)
    world.run(10)
    assert world.batches[2:] == [["2b"], ["3a"]]


def test_without_a_number_of_candidates_there_are_as_many_as_fit_a_batch() -> None:
    world = World("oldest {}", max_batch_size=2)
    for id in (1, 2, 3):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert world.batches == [["1a"], ["2a"]]


DELAYED = OLDEST % "preferred_batch_size: [ 2, 3 ] max_queue_delay_microseconds: 5000"


def test_a_preferred_batch_is_executed_at_once_and_the_rest_waits_for_the_delay() -> None:
    world = World(DELAYED)
    world.send("1a", 1, start=True)
    assert world.batches == []
    world.send("2a", 2, start=True)
    assert world.batches == [["1a", "2a"]]
    world.send("3a", 3, start=True)
    world.run(4.9)
    assert world.batches == [["1a", "2a"]]
    world.run(0.2)
    assert world.batches == [["1a", "2a"], ["3a"]]


def test_the_largest_preferred_batch_is_taken() -> None:
    world = World(DELAYED)
    for id in range(1, 8):
        world.send(f"{id}a", id, start=True)
    world.run(20)
    assert world.batches == [["1a", "2a"], ["3a", "4a", "5a"], ["6a", "7a"]]


def test_a_step_of_another_shape_does_not_stop_those_that_fit() -> None:
    world = World(OLDEST % "", dims=-1)
    for id, size in enumerate((1, 1, 2, 1, 2), start=1):
        world.send(f"{id}a", id, start=True, size=size)
    world.run(10)
    assert world.batches == [["1a"], ["2a", "4a"], ["3a", "5a"]]


def test_with_preserve_ordering_it_does() -> None:
    world = World(OLDEST % "preserve_ordering: true", dims=-1)
    for id, size in enumerate((1, 1, 2, 1, 2, 2), start=1):
        world.send(f"{id}a", id, start=True, size=size)
    world.run(10)
    assert world.batches == [["1a"], ["2a"], ["3a"], ["4a"], ["5a", "6a"]]


def test_a_step_that_waits_for_more_of_its_shape_holds_up_no_batch_of_another() -> None:
    world = World(DELAYED, dims=-1)
    world.send("1a", 1, start=True, size=1)
    world.send("2a", 2, start=True, size=2)
    world.run(1)
    world.send("3a", 3, start=True, size=2)
    assert world.batches == [["2a", "3a"]]
    world.run(3.9)
    assert world.batches == [["2a", "3a"]]
    world.run(0.2)
    assert world.batches == [["2a", "3a"], ["1a"]]
