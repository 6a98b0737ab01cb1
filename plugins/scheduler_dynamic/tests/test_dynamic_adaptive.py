"""``max_queue_delay: auto``: the choice by itself, and the batcher that follows it, on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from dynamic_batching import INPUT, MS, batches, request, simulate, submit
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.scheduling import Batch
from trivet.testing import Simulation
from trivet_scheduler_dynamic.adaptive import ArrivalRate, Choice, ComputeTimes, choose


def measured(times_ms: dict[int, float]) -> ComputeTimes:
    times = ComputeTimes()
    for rows, took_ms in times_ms.items():
        for _ in range(8):
            times.add(rows, int(took_ms * MS), 0)
    return times


def chosen(times: ComputeTimes, objective_ms: float, per_s: float = 0, max_rows: int = 64) -> Choice:
    return choose(times, per_s / 1e9, instances=1, objective_ns=int(objective_ms * MS), max_rows=max_rows)


LINEAR = {1: 4.0, 2: 7.0, 4: 13.0, 8: 25.0, 16: 49.0}
"""A fixed cost of 1 ms, and 3 ms for each row."""
FLAT = {1: 10.0, 2: 10.2, 4: 10.6, 8: 11.4, 16: 13.0}
"""As on a GPU that is not full: a fixed cost of nearly 10 ms."""


@pytest.mark.parametrize(
    ("objective_ms", "limit"), [(230, 32), (190, 27), (120, 17), (60, 8), (30, 4), (16, 2), (10, 1)]
)
def test_the_largest_batch_is_one_of_which_two_fit_into_the_objective(objective_ms: float, limit: int) -> None:
    assert chosen(measured(LINEAR), objective_ms).limit == limit


def test_a_size_at_which_the_model_is_less_efficient_is_not_used() -> None:
    assert chosen(measured({1: 4.0, 2: 5.0, 4: 8.0, 8: 30.0, 16: 90.0}), 1000).limit == 4


@pytest.mark.parametrize(("per_s", "limit"), [(10, 1), (270, 2), (300, 4), (1000, 16)])
def test_where_no_size_is_within_the_objective_the_load_is_carried(per_s: float, limit: int) -> None:
    assert chosen(measured(LINEAR), 1, per_s=per_s) == Choice(limit, 0)


def test_an_idle_model_delays_nothing_and_a_busy_one_as_long_as_an_execution_costs() -> None:
    assert chosen(measured(FLAT), 100, per_s=5).delay_ns == 0
    busy = chosen(measured(FLAT), 100, per_s=1000)
    assert 8 * MS < busy.delay_ns < 10 * MS
    assert chosen(measured(LINEAR), 200, per_s=250).delay_ns == 0  # nobody comes within the 1 ms that would be saved
    assert 0 < chosen(measured(FLAT), 30, per_s=1000).delay_ns <= 30 * MS - 2 * 13 * MS


def test_what_was_slow_once_is_tried_again() -> None:
    times = measured({1: 4.0, 2: 400.0})
    assert chosen(times, 100).limit == 1
    times.add(1, 4 * MS, 11_000 * MS)
    times.forget(11_000 * MS)
    assert chosen(times, 100).limit == 2


@given(
    times_ms=st.dictionaries(st.integers(1, 64), st.floats(0.01, 1000), min_size=1),
    objective_ms=st.floats(0.1, 10_000),
    per_s=st.floats(0, 100_000),
    instances=st.integers(1, 4),
)
def test_the_choice_is_within_the_objective_wherever_one_is(
    times_ms: dict[int, float], objective_ms: float, per_s: float, instances: int
) -> None:
    times = measured(times_ms)
    objective_ns = int(objective_ms * MS)
    choice = choose(times, per_s / 1e9, instances=instances, objective_ns=objective_ns, max_rows=32)
    assert 1 <= choice.limit <= 32
    assert choice.delay_ns >= 0
    worst = 2 * times.slow(choice.limit) + choice.delay_ns
    assert worst <= objective_ns or not any(
        2 * times.slow(size) <= 0.9 * objective_ns for size in {1, *times.sizes} if size <= 32
    )


def test_the_arrival_rate_follows_the_load() -> None:
    rate = ArrivalRate()
    now = 1
    for per_step, expected in [(10, 0.5e-6), (100, 5e-6), (0, 0)]:
        for _ in range(200):
            now += 20 * MS
            rate.add(per_step)
            rate.update(now)
        assert rate.per_ns == pytest.approx(expected, rel=0.01, abs=1e-8)


def adaptive(objective_ms: float, compute_ns: Callable[[Batch], int] | None = None, **options: object) -> Simulation:
    parameters = 'parameters { key: "dynamic_batching.max_queue_delay" value { string_value: "auto" } }'
    parameters += (
        f'parameters {{ key: "dynamic_batching.latency_objective_ms" value {{ string_value: "{objective_ms}" }} }}'
    )
    return simulate(more=parameters, compute_ns=compute_ns, inputs=INPUT, **{"max_batch_size": 64, **options})  # type: ignore[arg-type]


def linear_ns(batch: Batch) -> int:
    return (1 + 3 * sum(each.batch_size for each in batch.requests)) * MS


def flat_ns(batch: Batch) -> int:
    return 10 * MS + sum(each.batch_size for each in batch.requests) * MS // 10


def offer(simulation: Simulation, phases: list[tuple[float, float]], seed: int = 1) -> list[float]:
    """Poisson arrivals at so many a second for so many seconds, phase by phase; gives the latencies in ms."""
    random = Random(seed)
    came: dict[object, int] = {}
    for per_s, seconds in phases:
        end = simulation.now_ns + int(seconds * 1e9)
        while simulation.now_ns < end:
            simulation.advance(int(random.expovariate(per_s) * 1e9))
            each = request()
            came[each] = simulation.now_ns
            simulation.submit(each)
    simulation.run()
    assert set(simulation.answers) == set(came)
    return [(each.compute_end_ns - at) / MS for each, at in came.items()]  # type: ignore[attr-defined]


def goodput(latencies: list[float], objective_ms: float) -> float:
    return sum(latency <= objective_ms for latency in latencies) / len(latencies)


def test_the_objective_is_met_as_long_as_it_can_be_while_the_load_changes() -> None:
    simulation = adaptive(60, linear_ns)
    latencies = offer(simulation, [(20, 5), (250, 5), (50, 5), (280, 5)])
    assert goodput(latencies, 60) > 0.99


def test_batches_grow_only_as_far_as_the_objective_allows() -> None:
    simulation = adaptive(60, linear_ns)
    offer(simulation, [(1000, 2)])
    assert max(len(names) for names in batches(simulation)) == 8


def test_when_the_load_changes_no_fixed_setting_answers_as_much_in_time() -> None:
    # 30 %, 80 %, 140 % and 60 % of what the model can do.
    phases = [(94.0, 2.0), (250.0, 2.0), (440.0, 2.0), (190.0, 4.0)]
    auto = goodput(offer(adaptive(100, linear_ns), phases), 100)
    fixed = {
        (limit, delay_us): goodput(
            offer(
                simulate(f"max_queue_delay_microseconds: {delay_us}", max_batch_size=limit, compute_ns=linear_ns),
                phases,
            ),
            100,
        )
        for limit in (4, 16, 64)
        for delay_us in (0, 1000, 5000, 20_000)
    }
    assert auto > 0.85  # of what comes in the third phase, 0.71 can be answered at all
    assert auto > 1.25 * max(fixed.values())


def test_a_closed_loop_is_batched_whole_where_an_execution_is_expensive() -> None:
    def answered_in_2_s(simulation: Simulation) -> int:
        # 16 clients, each of which asks again within a millisecond.
        random, count = Random(1), 0
        due = [(number * MS, request()) for number in range(16)]
        while simulation.now_ns < 2000 * MS:
            simulation.advance(MS // 10)
            asking = len(simulation.answered) - count
            due += [(simulation.now_ns + int(random.random() * MS), request()) for _ in range(asking)]
            count += asking
            for each in [each for at, each in due if at <= simulation.now_ns]:
                simulation.submit(each)
            due = [pair for pair in due if pair[0] > simulation.now_ns]
        return count

    fixed = answered_in_2_s(simulate(max_batch_size=16, compute_ns=flat_ns))
    assert answered_in_2_s(adaptive(200, flat_ns, max_batch_size=16)) > 1.5 * fixed


def test_late_requests_do_not_starve() -> None:
    simulation = adaptive(10, lambda _: 4 * MS)
    submit(simulation, "xb")
    # Three times as much as can be executed, one by one.
    for _ in range(100):
        submit(simulation, "zzz")
        simulation.advance(4 * MS)
    executed = batches(simulation)
    assert {len(names) for names in executed} == {1}
    late = [
        names
        for (_, requests), names in zip(simulation.executions, executed, strict=True)
        if waited(requests[0]) > 10 * MS
    ]
    assert 4 <= len(late) <= 100 // 16


def waited(served: InferenceRequest) -> int:
    return served.compute_start_ns - served.queued_ns


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_queue_delay": "auto"}, "latency_objective_ms' is '', expected the p99 latency"),
        ({"max_queue_delay": "auto", "latency_objective_ms": "fast"}, "'fast', expected"),
        ({"max_queue_delay": "auto", "latency_objective_ms": "-1"}, "'-1', expected"),
        ({"max_queue_delay": "100"}, "'100', expected 'auto'"),
        ({"latency_objective_ms": "100"}, "'', expected 'auto'"),
    ],
)
def test_parameters_that_do_not_say_what_is_wanted_are_refused(more: dict[str, str], message: str) -> None:
    parameters = " ".join(
        f'parameters {{ key: "dynamic_batching.{key}" value {{ string_value: "{value}" }} }}'
        for key, value in more.items()
    )
    with pytest.raises(InvalidArgumentError, match=message):
        simulate(more=parameters)
