"""Which requests share a batch, and when it goes."""

from __future__ import annotations

import numpy as np
import pytest
from dynamic_batching import MS, batches, finish, request, simulate, submit
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor


def test_a_request_goes_at_once_when_an_instance_is_free() -> None:
    simulation = simulate()
    submit(simulation, "a")
    assert batches(simulation) == [["a"]]


def test_a_batch_fills_up_while_the_instance_computes() -> None:
    simulation = simulate()
    submit(simulation, "abcdefg")
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["a"], ["b", "c", "d", "e"], ["f", "g"]]


def test_each_free_instance_takes_work() -> None:
    simulation = simulate(instances=2)
    submit(simulation, "abcd")
    assert [name for name, _ in simulation.executions] == ["instance_0", "instance_1"]
    finish(simulation, 1)
    assert batches(simulation) == [["a"], ["b"], ["c", "d"]]


def test_a_full_batch_is_handed_over_ahead_of_time_and_the_next_request_waits() -> None:
    simulation = simulate()
    submit(simulation, "abcdef")
    assert simulation.scheduler.context.waiting() == 1
    assert simulation.scheduler.queued == 5


def test_a_batch_that_may_still_change_is_not_handed_over_ahead() -> None:
    simulation = simulate("default_queue_policy { max_queue_size: 10 }")
    submit(simulation, "abcdef")
    assert simulation.scheduler.context.waiting() == 0


def test_eager_batching_hands_over_what_is_there() -> None:
    simulation = simulate(more="optimization { eager_batching: true }")
    submit(simulation, "abc")
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["a"], ["b"], ["c"]]


def test_no_batch_is_larger_than_the_model_takes() -> None:
    simulation = simulate()
    submit(simulation, "a")
    submit(simulation, "bcd", rows=2)
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize("max_batch_size", [0, 1])
def test_a_model_that_does_not_batch_gets_one_request_at_a_time(max_batch_size: int) -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000", max_batch_size=max_batch_size)
    submit(simulation, "ab")
    finish(simulation)
    assert batches(simulation) == [["a"], ["b"]]


def test_the_delay_waits_for_a_full_batch() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    submit(simulation, "abc")
    assert batches(simulation) == []
    submit(simulation, "d")
    assert batches(simulation) == [["a", "b", "c", "d"]]


def test_the_delay_ends_with_the_oldest_request() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    submit(simulation, "a")
    simulation.advance(MS // 2)
    submit(simulation, "b")
    simulation.advance(MS // 2 - 1)
    assert batches(simulation) == []
    simulation.advance(1)
    assert batches(simulation) == [["a", "b"]]


def test_a_delay_that_passed_while_the_instance_computed_costs_nothing_more() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    submit(simulation, "abcd")
    submit(simulation, "e")
    simulation.advance(MS)
    finish(simulation)
    assert batches(simulation) == [["a", "b", "c", "d"], ["e"]]


def test_a_preferred_size_goes_without_delay() -> None:
    simulation = simulate("preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 1000")
    submit(simulation, "ab")
    assert batches(simulation) == [["a", "b"]]


def test_the_largest_preferred_size_is_made() -> None:
    simulation = simulate("preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 1000000", max_batch_size=8)
    submit(simulation, "ab")
    submit(simulation, "cdefghi")
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["a", "b"], ["c", "d", "e", "f"], ["g", "h"]]


def test_what_waited_too_long_for_a_preferred_size_goes_in_any_size() -> None:
    simulation = simulate("preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1000", max_batch_size=8)
    submit(simulation, "abcd")
    submit(simulation, "efghi")
    simulation.advance(MS)
    finish(simulation)
    assert batches(simulation) == [["a", "b", "c", "d"], ["e", "f", "g", "h", "i"]]


def test_without_delay_a_batch_of_another_than_a_preferred_size_goes_too() -> None:
    simulation = simulate("preferred_batch_size: [ 4 ]", max_batch_size=8)
    submit(simulation, "abcdefgh")
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["a"], ["b", "c", "d", "e"], ["f", "g", "h"]]


def test_what_would_overshoot_every_preferred_size_goes_without_it() -> None:
    simulation = simulate("preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1000", max_batch_size=8)
    submit(simulation, "ab", rows=3)
    assert batches(simulation) == [["a"]]


def test_requests_of_one_shape_share_a_batch_and_the_oldest_request_says_whose_turn_it_is() -> None:
    simulation = simulate()
    submit(simulation, "x")
    for name, size in [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 2)]:
        simulation.advance(1)
        submit(simulation, name, size=size)
    for _ in range(3):
        finish(simulation)
    assert batches(simulation) == [["x"], ["a", "c"], ["b", "e"], ["d"]]


def test_a_delayed_shape_does_not_hold_up_a_full_batch_of_another() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    submit(simulation, "a", size=1)
    simulation.advance(1)
    submit(simulation, "bcde", size=2)
    assert batches(simulation) == [["b", "c", "d", "e"]]
    finish(simulation)
    simulation.advance(MS)
    assert batches(simulation) == [["b", "c", "d", "e"], ["a"]]


def test_a_shape_with_much_traffic_does_not_starve_another() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    submit(simulation, "aaaa", size=2)
    simulation.advance(1)
    submit(simulation, "b", size=1)
    for _ in range(2):
        simulation.advance(MS)
        submit(simulation, "aaaa", size=2)
        finish(simulation)
    assert ["b"] in batches(simulation)


def test_ragged_inputs_share_a_batch_whatever_their_shapes() -> None:
    ragged = 'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }'
    simulation = simulate(inputs=ragged)
    submit(simulation, "x")
    submit(simulation, "a", size=1)
    submit(simulation, "b", size=2)
    finish(simulation)
    assert batches(simulation) == [["x"], ["a", "b"]]


def test_requests_that_give_other_optional_inputs_do_not_share_a_batch() -> None:
    optional = 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] optional: true } '
    optional += 'input { name: "y" data_type: TYPE_FP32 dims: [ 1 ] optional: true }'
    simulation = simulate(inputs=optional)
    given = [("s", "xy"), ("a", "x"), ("b", "xy"), ("c", "x"), ("d", "yx")]
    for name, inputs in given:
        simulation.advance(1)
        tensors = {each: Tensor.from_numpy(each, np.zeros((1, 1), np.float32)) for each in inputs}
        simulation.submit(InferenceRequest("m", tensors, id=name))
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["s"], ["a", "c"], ["b", "d"]]


def test_shape_tensors_must_have_equal_values() -> None:
    tensors = 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } '
    tensors += 'input { name: "to" data_type: TYPE_INT32 dims: [ 2 ] is_shape_tensor: true }'
    simulation = simulate(inputs=tensors)
    for name, shape in [("s", [0, 0]), ("a", [1, 2]), ("b", [2, 1]), ("c", [1, 2])]:
        simulation.advance(1)
        to = Tensor.from_numpy("to", np.array(shape, np.int32))
        x = Tensor.from_numpy("x", np.zeros((1, 1), np.float32))
        simulation.submit(InferenceRequest("m", {"x": x, "to": to}, id=name))
    finish(simulation)
    finish(simulation)
    assert batches(simulation) == [["s"], ["a", "c"], ["b"]]


def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    simulation = simulate()
    _, b, _ = submit(simulation, "abc")
    simulation.cancel(b)
    assert simulation.scheduler.queued == 1
    finish(simulation)
    assert batches(simulation) == [["a"], ["c"]]


def test_a_request_whose_inputs_the_model_has_changed_can_be_cancelled() -> None:
    simulation = simulate()
    [a] = submit(simulation, "a")
    a.inputs = {}
    simulation.cancel(a)
    assert simulation.answered == [a]
    assert simulation.scheduler.queued == 0


def test_a_model_takes_a_request_again() -> None:
    simulation = simulate()
    again = request("again")
    simulation.submit(again)
    submit(simulation, "b")
    simulation.scheduler.reschedule(again)
    finish(simulation)
    assert batches(simulation) == [["again"], ["b", "again"]]


def test_closing_stops_the_timer() -> None:
    simulation = simulate("max_queue_delay_microseconds: 1000")
    [a] = submit(simulation, "a")
    simulation.cancel(a)
    simulation.scheduler.close()
    simulation.run()
    assert simulation.now_ns == 0
