"""From its first request to its last: who may join a sequence, when it ends, and what becomes of its slot."""

from __future__ import annotations

import logging

import pytest
from sequence_simulation import CONTROLS, World
from trivet.errors import InvalidArgumentError, RequestCancelledError, UnavailableError, UnimplementedError

ONE = "oldest { max_candidate_sequences: 1 }"
STRATEGIES = pytest.mark.parametrize("strategy", ["direct {}", "oldest { max_candidate_sequences: 4 }"])


def ended(world: World, tag: str) -> BaseException | None:
    [error] = world.answers[tag]
    return error


@pytest.mark.parametrize("id", [0, ""])
def test_a_request_needs_a_correlation_id(id: int | str) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=r"^inference request to model 'm' must specify a non-zero or non-empty correlation ID$",
    ):
        World("").send("a", id, start=True)


@pytest.mark.parametrize("id", [7, "seven"])
def test_a_sequence_begins_with_start(id: int | str) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=f"^inference request for sequence {id} to model 'm' must specify the START flag on the first request of"
        " the sequence$",
    ):
        World("").send("a", id)


def test_a_request_is_one_entry() -> None:
    with pytest.raises(InvalidArgumentError, match="must specify batch-size 1 due to requirements of sequence batcher"):
        World("").send("a", 1, start=True, batch_size=2)


def test_a_string_does_not_fit_an_integer_control() -> None:
    with pytest.raises(InvalidArgumentError, match="control input 'CORRID' has datatype TYPE_UINT64; use an integer"):
        World(CONTROLS).send("a", "abc", start=True)


def test_a_text_may_be_128_bytes_long() -> None:
    world = World("")
    world.send("a", "ü" * 64, start=True, end=True)
    with pytest.raises(UnimplementedError, match=r"^string correlation ID cannot be longer than 128 characters$"):
        world.send("b", "ü" * 64 + "x", start=True)


def test_a_number_and_its_digits_are_two_sequences() -> None:
    world = World("")
    world.send("a", 1, start=True)
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("b", "1")


@STRATEGIES
def test_after_its_end_a_sequence_is_forgotten(strategy: str) -> None:
    world = World(strategy)
    world.send("a", 1, start=True, end=True)
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("b", 1)
    world.send("c", 1, start=True)
    world.run(10)
    assert world.answers == {"a": [None], "c": [None]}


@STRATEGIES
def test_a_start_within_a_sequence_goes_on_in_its_slot(strategy: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(strategy + CONTROLS)
    world.send("a", 1, start=True)
    with caplog.at_level(logging.WARNING):
        world.send("b", 1, start=True)
    assert "sequence 1 for model 'm' has a conflict" in caplog.text
    world.send("c", 1, end=True)
    world.run(10)
    assert world.batches == [["a"], ["b"], ["c"]]
    assert [rows[0]["START"] for rows in world.rows] == [[1], [1], [0]]
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("d", 1)


@STRATEGIES
def test_an_idle_sequence_is_forgotten(strategy: str) -> None:
    world = World(strategy + "max_sequence_idle_microseconds: 100000")
    world.send("a", 1, start=True)
    world.run(99)
    world.send("b", 1)
    world.run(100.5)
    world.send("c", 1)
    world.run(102)
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("d", 1)


def test_a_sequence_is_not_idle_while_its_request_is_executed() -> None:
    world = World("max_sequence_idle_microseconds: 100000", compute_ms=150)
    world.send("a", 1, start=True)
    world.run(200)
    world.send("b", 1)
    world.run(200)
    assert world.answers == {"a": [None], "b": [None]}


def test_the_backlog_is_served_in_its_order_as_slots_get_free() -> None:
    world = World(ONE)
    world.send("1a", 1, start=True)
    world.send("2a", 2, start=True)
    world.send("3a", 3, start=True, end=True)
    world.send("2b", 2)
    world.run(10)
    assert world.batches == [["1a"]]
    world.send("1b", 1, end=True)
    world.run(10)
    assert world.batches == [["1a"], ["1b"], ["2a"], ["2b"]]
    world.send("2c", 2, end=True)
    world.run(10)
    assert world.batches[4:] == [["2c"], ["3a"]]


def test_a_slot_that_a_silent_client_holds_gets_free_in_the_end() -> None:
    world = World(ONE)
    world.send("1a", 1, start=True)
    world.send("2a", 2, start=True)
    world.run(1000)
    assert world.batches == [["1a"]]
    world.run(2)
    assert world.batches == [["1a"], ["2a"]]


def test_a_sequence_leaves_the_backlog_when_a_request_has_waited_too_long() -> None:
    world = World(ONE)
    world.send("1a", 1, start=True)
    world.send("2a", 2, start=True, timeout_us=50_000)
    world.send("2b", 2, timeout_us=20_000)
    world.send("3a", 3, start=True)
    world.run(19)
    assert not world.answers["2a"]
    world.run(2)
    for tag in ("2a", "2b"):
        error = ended(world, tag)
        assert isinstance(error, UnavailableError)
        assert str(error) == "timeout of the corresponding sequence has been expired"
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("2c", 2)
    world.run(1000)
    assert world.batches == [["1a"], ["3a"]]


def test_a_timeout_is_for_the_backlog_alone() -> None:
    world = World("", compute_ms=10)
    world.send("1a", 1, start=True)
    world.send("1b", 1, timeout_us=1000)
    world.run(30)
    assert world.answers == {"1a": [None], "1b": [None]}


@STRATEGIES
def test_cancelling_a_request_that_waits_ends_its_sequence(strategy: str) -> None:
    world = World(strategy)
    world.send("1a", 1, start=True)
    waiting = world.send("1b", 1)
    world.send("1c", 1)
    world.send("2a", 2, start=True)
    world.cancel(waiting)
    assert isinstance(ended(world, "1b"), RequestCancelledError)
    assert isinstance(ended(world, "1c"), RequestCancelledError)
    assert world.scheduler.queued == 1
    with pytest.raises(InvalidArgumentError, match="START flag"):
        world.send("1d", 1)
    world.run(10)
    assert ended(world, "1a") is None
    assert ended(world, "2a") is None
    world.send("3a", 3, start=True)
    world.run(10)
    assert world.batches[-1] == ["3a"]  # the slot of sequence 1


def test_cancelling_a_request_in_the_backlog_ends_its_sequence() -> None:
    world = World(ONE)
    world.send("1a", 1, start=True)
    first = world.send("2a", 2, start=True)
    world.send("2b", 2)
    world.cancel(first)
    assert isinstance(ended(world, "2b"), RequestCancelledError)
    world.run(2000)
    assert world.batches == [["1a"]]


@STRATEGIES
def test_a_sequence_outlives_the_cancellation_of_a_step_that_is_executed(strategy: str) -> None:
    world = World(strategy)
    running = world.send("1a", 1, start=True)
    world.cancel(running)
    world.send("1b", 1)
    world.run(10)
    assert world.batches == [["1a"], ["1b"]]
    assert isinstance(ended(world, "1a"), RequestCancelledError)
    assert ended(world, "1b") is None


@STRATEGIES
def test_when_the_model_unloads_nothing_waits_for_requests_that_cannot_come(strategy: str) -> None:
    world = World("max_sequence_idle_microseconds: 3600000000 " + strategy, max_batch_size=1)
    for id in range(1, 7):
        world.send(f"{id}a", id, start=True)
    world.run(10)
    assert len(world.batches) < 6
    world.scheduler.drain()
    world.run(10)
    assert all(answers == [None] for answers in world.answers.values())
    world.scheduler.close()


def test_a_sequence_goes_on_while_the_server_drains_if_nobody_needs_its_slot() -> None:
    world = World("")
    world.send("1a", 1, start=True)
    world.run(10)
    world.scheduler.drain()
    world.send("1b", 1)
    world.run(10)
    assert world.answers["1b"] == [None]


def test_a_request_that_the_model_answers_later_keeps_the_next_step_waiting() -> None:
    world = World("oldest { max_candidate_sequences: 4 }")
    world.late.add("1a")
    first = world.send("1a", 1, start=True)
    world.send("1b", 1)
    world.run(10)
    assert world.batches == [["1a"]]
    first.done = True
    world.answer(first, None)
    world.run(10)
    assert world.batches == [["1a"], ["1b"]]
