"""Whatever comes in whatever order: what always holds, on a simulated clock."""

from __future__ import annotations

from dynamic_batching import MS, request, simulate
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from trivet.errors import RequestCancelledError, UnavailableError
from trivet.inference import InferenceRequest
from trivet.testing import Simulation

AUTO = """
parameters { key: "dynamic_batching.max_queue_delay" value { string_value: "auto" } }
parameters { key: "dynamic_batching.latency_objective_ms" value { string_value: "%d" } }
"""
DELAYS_US = st.sampled_from([0, 100, 1000])
TIMEOUTS_US = st.sampled_from([0, 500, 2000])


@st.composite
def policies(draw: st.DrawFn) -> tuple[str, int, bool]:
    """A queue policy, its largest queue, and whether it may be used with ``preserve_ordering``."""
    action = draw(st.sampled_from(["REJECT", "DELAY"]))
    timeout_us, size = draw(TIMEOUTS_US), draw(st.sampled_from([0, 0, 1, 5]))
    override = "true" if draw(st.booleans()) else "false"
    text = f"timeout_action: {action} default_timeout_microseconds: {timeout_us} allow_timeout_override: {override}"
    return f"{{ {text} max_queue_size: {size} }}", size, action == "REJECT"


class Batching(RuleBasedStateMachine):
    """Submits, cancels, finishes and lets time pass, in any order."""

    @initialize(
        data=st.data(),
        max_batch_size=st.sampled_from([0, 1, 4, 8]),
        instances=st.integers(1, 3),
        levels=st.integers(0, 3),
        delay_us=DELAYS_US,
        eager=st.booleans(),
        objective_ms=st.sampled_from([None, None, 1, 10]),
    )
    def start(
        self,
        data: st.DataObject,
        max_batch_size: int,
        instances: int,
        levels: int,
        delay_us: int,
        eager: bool,
        objective_ms: int | None,
    ) -> None:
        self.max_batch_size, self.levels = max(1, max_batch_size), levels
        preferred = data.draw(st.lists(st.integers(1, self.max_batch_size), max_size=3)) if max_batch_size else []
        policy, self.max_queue_size, ordered = data.draw(policies())
        self.ordered = ordered and levels <= 1 and data.draw(st.booleans())
        more = "optimization { eager_batching: true }" if eager else ""
        if objective_ms:
            delay_us = 0
            more += AUTO % objective_ms
        fields = [
            f"preferred_batch_size: {preferred} max_queue_delay_microseconds: {delay_us}",
            f"priority_levels: {levels} default_priority_level: {min(levels, 2)} default_queue_policy {policy}",
            "preserve_ordering: true" if self.ordered else "",
        ]
        self.simulation: Simulation = simulate(
            " ".join(fields), max_batch_size=max_batch_size, instances=instances, more=more
        )
        self.accepted: list[InferenceRequest] = []
        self.refused: list[InferenceRequest] = []

    @rule(
        rows=st.integers(1, 8),
        size=st.integers(1, 3),
        priority=st.integers(0, 4),
        timeout_us=st.sampled_from([0, 100, 1000, 10_000]),
    )
    def submit(self, rows: int, size: int, priority: int, timeout_us: int) -> None:
        made = request(
            f"{len(self.accepted)}",
            rows=min(rows, self.max_batch_size),
            size=size,
            priority=priority,
            timeout_us=timeout_us,
        )
        error = self.simulation.submit(made)
        if error is None:
            self.accepted.append(made)
        else:
            assert isinstance(error, UnavailableError)
            assert self.max_queue_size
            self.refused.append(made)

    @rule(rows=st.lists(st.integers(1, 8), min_size=2, max_size=10))
    def submit_many(self, rows: list[int]) -> None:
        for each in rows:
            self.submit(each, 1, 0, 0)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.simulation.cancel(data.draw(st.sampled_from(self.accepted)))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        busy = [instance for instance in self.simulation.instances if instance.executing is not None]
        if busy:
            self.simulation.finish(data.draw(st.sampled_from(busy)))

    @rule(us=st.sampled_from([1, 50, 500, 3000]))
    def wait(self, us: int) -> None:
        self.simulation.advance(us * 1000)

    def teardown(self) -> None:
        if not hasattr(self, "simulation"):
            return
        simulation = self.simulation
        # An instance that is always free again must get through all that waits, however it waits.
        for _ in range(4 * len(self.accepted) + 4):
            busy = [instance for instance in simulation.instances if instance.executing is not None]
            for instance in busy:
                simulation.finish(instance)
            if not busy:
                simulation.advance(10 * MS)
        self.check_answers()
        self.check_batches()
        scheduler = simulation.scheduler
        assert scheduler.queued == 0
        # Nothing of any request is left behind.
        state = vars(scheduler)
        assert not len(state["_groups"])
        assert not len(state["_deadlines"])
        assert not state["_sizes"]
        assert not state["_submitted"]
        assert not state["_order"]
        assert not state["_late"]

    def check_answers(self) -> None:
        answers = self.simulation.answers
        assert set(answers) == set(self.accepted)
        executed = {one for _, requests in self.simulation.executions for one in requests}
        for one in self.accepted:
            [response] = answers[one]
            if response.error is None:
                assert one in executed
            else:
                assert isinstance(response.error, RequestCancelledError if one.cancelled else UnavailableError)
                assert one.cancelled or one not in executed
        if self.ordered:
            served = [one for one in self.simulation.answered if answers[one][0].error is None]
            assert served == sorted(served, key=self.accepted.index)

    def check_batches(self) -> None:
        seen: set[InferenceRequest] = set()
        for _, requests in self.simulation.executions:
            assert sum(one.batch_size for one in requests) <= self.max_batch_size
            assert len({one.inputs["x"].shape[1] for one in requests}) == 1
            assert seen.isdisjoint(requests)
            seen.update(requests)
        assert seen.isdisjoint(self.refused)


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=300, stateful_step_count=40)


def test_every_timeout_is_honoured_whatever_the_instances_do() -> None:
    policy = "default_queue_policy { default_timeout_microseconds: 2000 allow_timeout_override: true }"
    simulation = simulate(policy)
    timeouts_us = [0, 300, 1700, 100, 5000, 900, 100]
    simulation.submit(request("running"))
    waiting = [request(str(number), timeout_us=timeout) for number, timeout in enumerate(timeouts_us)]
    for one in waiting:
        simulation.submit(one)
    for one, timeout_us in sorted(zip(waiting, timeouts_us, strict=True), key=lambda pair: pair[1] or 2000):
        due_ns = min(timeout_us or 2000, 2000) * 1000
        simulation.advance(max(0, due_ns - simulation.now_ns))
        assert due_ns < simulation.now_ns or one not in simulation.answers
        simulation.advance(1)
        [response] = simulation.answers[one]
        assert str(response.error) == "Request timeout expired"


def test_memory_of_cancelled_requests_is_not_kept_while_the_instance_is_busy() -> None:
    policy = "default_queue_policy { default_timeout_microseconds: 60000000 }"
    simulation = simulate(f"priority_levels: 2 default_priority_level: 1 {policy}")
    simulation.submit(request("running"))
    for size in range(1, 3000):
        waiting = request(size=size % 50 + 1, priority=size % 3)
        simulation.submit(waiting)
        simulation.cancel(waiting)
    assert simulation.scheduler.queued == 0
    groups, deadlines = (vars(simulation.scheduler)[name] for name in ("_groups", "_deadlines"))
    assert len(vars(groups)["_ready"]) < 200
    assert len(vars(groups)["_delayed"]) < 200
    assert len(deadlines._heap) < 200
