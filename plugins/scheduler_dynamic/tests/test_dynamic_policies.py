"""Priorities, timeouts, full queues, and the order of responses."""

from __future__ import annotations

import pytest
from dynamic_batching import MS, batches, finish, request, simulate, submit
from trivet.errors import RequestCancelledError, UnavailableError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.testing import Simulation


def errors(simulation: Simulation, *requests: InferenceRequest) -> list[str | None]:
    """The error of each request's only response."""
    found: list[str | None] = []
    for one in requests:
        [response] = simulation.answers[one]
        found.append(response.error and str(response.error))
    return found


LEVELS = "priority_levels: 3 default_priority_level: 2"


def test_a_higher_priority_goes_first() -> None:
    simulation = simulate(LEVELS, max_batch_size=1)
    submit(simulation, "x")
    for name, priority in [("low", 3), ("default", 0), ("high", 1), ("beyond", 4), ("middle", 2)]:
        simulation.submit(request(name, priority=priority))
    for _ in range(5):
        finish(simulation)
    assert batches(simulation) == [["x"], ["high"], ["default"], ["beyond"], ["middle"], ["low"]]


def test_a_batch_is_filled_up_with_lower_priorities() -> None:
    simulation = simulate(LEVELS)
    submit(simulation, "x")
    submit(simulation, "ab", priority=3)
    submit(simulation, "c", priority=1)
    finish(simulation)
    assert batches(simulation) == [["x"], ["c", "a", "b"]]


def test_without_levels_a_priority_says_nothing() -> None:
    simulation = simulate()
    submit(simulation, "x")
    submit(simulation, "a", priority=3)
    submit(simulation, "b", priority=1)
    finish(simulation)
    assert batches(simulation) == [["x"], ["a", "b"]]


def test_a_group_with_a_higher_priority_goes_before_an_older_one() -> None:
    simulation = simulate(LEVELS)
    submit(simulation, "x")
    submit(simulation, "ab", size=1, priority=3)
    submit(simulation, "c", size=2, priority=1)
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["x"], ["c"], ["a", "b"]]


def test_a_full_queue_refuses_at_once_in_tritons_words() -> None:
    simulation = simulate("default_queue_policy { max_queue_size: 2 }")
    submit(simulation, "xab")
    refused = simulation.submit(request("c"))
    assert isinstance(refused, UnavailableError)
    assert str(refused) == "[request id: c] Exceeds maximum queue size"
    finish(simulation)
    submit(simulation, "de")
    assert isinstance(simulation.submit(request()), UnavailableError)


def test_a_cancelled_request_makes_room_in_a_full_queue() -> None:
    simulation = simulate("default_queue_policy { max_queue_size: 1 }")
    _, a = submit(simulation, "xa")
    simulation.cancel(a)
    submit(simulation, "b")


def test_each_level_has_a_queue_of_its_own() -> None:
    policies = "default_queue_policy { max_queue_size: 1 }"
    policies += " priority_queue_policy { key: 1 value { max_queue_size: 2 } }"
    simulation = simulate(f"{LEVELS} {policies}")
    submit(simulation, "x")
    submit(simulation, "ab", priority=1)
    submit(simulation, "c", priority=2)
    submit(simulation, "d", priority=3)
    for priority in (0, 1, 2, 3):
        assert isinstance(simulation.submit(request(priority=priority)), UnavailableError)
    finish(simulation)
    submit(simulation, "ef", priority=1)


REJECT = "default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000"
DELAY = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1000"


def test_a_request_that_waits_too_long_is_rejected_when_its_time_is_over() -> None:
    simulation = simulate(f"{REJECT} }}")
    x, a = submit(simulation, "xa")
    simulation.advance(MS)
    assert a not in simulation.answers
    simulation.advance(1)
    assert errors(simulation, a) == ["Request timeout expired"]
    finish(simulation)
    assert errors(simulation, x) == [None]
    assert simulation.scheduler.queued == 0


def test_a_request_may_only_shorten_its_timeout() -> None:
    simulation = simulate(f"{REJECT} allow_timeout_override: true }}")
    submit(simulation, "x")
    [long] = submit(simulation, "l", timeout_us=5000)
    [short] = submit(simulation, "s", timeout_us=500)
    simulation.advance(MS // 2 + 1)
    assert errors(simulation, short) == ["Request timeout expired"]
    simulation.advance(MS // 2)
    assert errors(simulation, long) == ["Request timeout expired"]


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(f"{REJECT} }}", id="overriding is not allowed"),
        pytest.param("default_queue_policy { allow_timeout_override: true }", id="there is nothing to shorten"),
    ],
)
def test_a_requests_own_timeout_does_not_count(policy: str) -> None:
    simulation = simulate(policy)
    submit(simulation, "x")
    [a] = submit(simulation, "a", timeout_us=1)
    simulation.advance(MS // 2)
    assert a not in simulation.answers


def test_a_delayed_request_goes_behind_the_others_of_its_level() -> None:
    simulation = simulate(f"{LEVELS} {DELAY} }}", max_batch_size=1)
    submit(simulation, "x")
    submit(simulation, "ab")
    submit(simulation, "z", priority=3)
    simulation.advance(MS + 1)
    submit(simulation, "c")
    for _ in range(4):
        finish(simulation)
    assert batches(simulation) == [["x"], ["c"], ["a"], ["b"], ["z"]]


def test_a_delayed_request_counts_in_its_queue() -> None:
    simulation = simulate(f"{DELAY} max_queue_size: 1 }}")
    submit(simulation, "xa")
    simulation.advance(MS + 1)
    assert isinstance(simulation.submit(request()), UnavailableError)


def test_a_timeout_cuts_a_batch_that_is_delayed() -> None:
    simulation = simulate(f"max_queue_delay_microseconds: 5000 {REJECT} }}")
    [a] = submit(simulation, "a")
    simulation.advance(MS // 2)
    submit(simulation, "b")
    simulation.advance(MS // 2 + 1)
    assert errors(simulation, a) == ["Request timeout expired"]
    submit(simulation, "cde")
    assert batches(simulation) == [["b", "c", "d", "e"]]


ORDERED = "preserve_ordering: true"


def test_responses_are_given_in_the_order_of_their_requests() -> None:
    simulation = simulate(ORDERED, instances=2, max_batch_size=1)
    a, b, c = submit(simulation, "abc")
    finish(simulation, 1)
    finish(simulation, 1)
    assert simulation.answered == []
    finish(simulation, 0)
    assert simulation.answered == [a, b, c]


def test_shapes_are_batched_out_of_order_and_answered_in_order() -> None:
    simulation = simulate(ORDERED)
    submit(simulation, "x")
    a = submit(simulation, "a", size=1)
    b = submit(simulation, "b", size=2)
    c = submit(simulation, "c", size=1)
    finish(simulation)
    finish(simulation)
    assert simulation.answered[1:] == a
    finish(simulation)
    assert simulation.answered[1:] == [*a, *b, *c]


def test_several_responses_of_one_request_stay_together() -> None:
    def respond(_: InferenceRequest) -> list[InferenceResponse]:
        return [InferenceResponse(final=False), InferenceResponse(final=False), InferenceResponse()]

    simulation = simulate(ORDERED, instances=2, max_batch_size=1, respond=respond)
    a, b = submit(simulation, "ab")
    finish(simulation, 1)
    assert b not in simulation.answers
    finish(simulation, 0)
    assert [len(simulation.answers[each]) for each in (a, b)] == [3, 3]
    assert simulation.answered == [a, b]


def test_a_cancelled_request_holds_nobody_up() -> None:
    simulation = simulate(ORDERED, instances=2, max_batch_size=1)
    a, b = submit(simulation, "ab")
    finish(simulation, 1)
    simulation.cancel(a)
    assert set(simulation.answered) == {a, b}
    [response] = simulation.answers[a]
    assert isinstance(response.error, RequestCancelledError)


def test_a_response_that_is_held_back_can_still_be_cancelled() -> None:
    simulation = simulate(ORDERED, instances=2, max_batch_size=1)
    a, b = submit(simulation, "ab")
    finish(simulation, 1)
    simulation.cancel(b)
    [response] = simulation.answers[b]
    assert isinstance(response.error, RequestCancelledError)
    finish(simulation, 0)
    assert simulation.answered == [b, a]


def test_a_rejected_request_holds_nobody_up() -> None:
    simulation = simulate(f"{ORDERED} {REJECT} }}", max_batch_size=1)
    x, a = submit(simulation, "xa")
    simulation.advance(MS // 2)
    [b] = submit(simulation, "b")
    simulation.advance(MS // 2 + 1)
    assert errors(simulation, a) == ["Request timeout expired"]
    finish(simulation)
    finish(simulation)
    assert simulation.answered == [a, x, b]
