"""Whatever clients do and whenever they do it: properties that hold for both strategies, on a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sequence_simulation import World
from trivet.errors import InvalidArgumentError, RequestCancelledError, UnavailableError
from trivet.inference import InferenceRequest

IDLE_MS = 50


@dataclass(frozen=True)
class Settings:
    strategy: str
    max_batch_size: int
    instances: int
    compute_ms: float
    slots: int

    def world(self, **options: Any) -> World:
        return World(
            f"max_sequence_idle_microseconds: {IDLE_MS * 1000} {self.strategy}",
            max_batch_size=self.max_batch_size,
            instances=self.instances,
            compute_ms=self.compute_ms,
            dims=-1,
            **options,
        )


@st.composite
def chosen(draw: st.DrawFn) -> Settings:
    batch = draw(st.sampled_from([0, 1, 2, 4]))
    delay = draw(st.sampled_from([0, 2000]))
    slots = max(batch, 1)
    if draw(st.booleans()):
        strategy = f"direct {{ max_queue_delay_microseconds: {delay} minimum_slot_utilization: 0.5 }}"
    else:
        slots = draw(st.integers(1, 5))
        sizes = draw(st.lists(st.integers(1, batch), max_size=2)) if batch else []
        strategy = (
            f"oldest {{ max_candidate_sequences: {slots} max_queue_delay_microseconds: {delay}"
            f" preferred_batch_size: {sizes} preserve_ordering: {str(draw(st.booleans())).lower()} }}"
        )
    return Settings(strategy, batch, draw(st.integers(1, 3)), draw(st.sampled_from([0.5, 5, IDLE_MS * 1.5])), slots)


steps = st.lists(
    st.tuples(
        st.integers(1, 6),  # correlation ID
        st.booleans(),  # start
        st.integers(0, 4),  # 0: end
        st.sampled_from([1, 1, 2]),  # size
        st.sampled_from([0, 0, 0, 3_000]),  # timeout
        st.sampled_from([0, 0, 1, 20, IDLE_MS + 10]),  # time that passes, in ms
        st.integers(0, 9),  # 0: the request is cancelled after that
    ),
    max_size=40,
)


@given(chosen(), steps)
def test_every_request_is_answered_once_in_its_order_and_in_its_place(given: Settings, steps: list[Any]) -> None:
    world = given.world()
    sent: list[InferenceRequest] = []
    executed: set[str] = set()
    latest: dict[Any, int] = {}
    began = world.began

    def watch(instance: Any, batch: Any) -> None:
        began(instance, batch)
        rows = [(row, sequence) for row, sequence in enumerate(batch.sequences) if sequence is not None]
        assert rows, "a batch of nothing"
        assert len(batch.requests) <= max(given.max_batch_size, 1)
        assert len({id(sequence) for _, sequence in rows}) == len(rows), "two steps of a sequence at once"
        for row, sequence in rows:
            request = batch.requests[row]
            assert request.id not in executed, "executed twice"
            assert latest.get(sequence, -1) < int(request.id), "the order within a sequence changed"
            latest[sequence] = int(request.id)
            executed.add(request.id)
            assert sequence.running is request
            assert sequence.slot.sequence is sequence, "a slot of somebody else"
            assert sequence.slot.batcher.instance is instance
            if "direct" in given.strategy:
                assert sequence.slot.number == row
        sizes = {request.inputs["x"].shape for request in batch.requests}
        assert len(sizes) == 1, "what cannot be batched was"

    world.began = watch  # type: ignore[method-assign]
    for number, (correlation, start, end, size, timeout_us, pause_ms, cancel) in enumerate(steps):
        try:
            request = world.send(str(number), correlation, start=start, end=end == 0, size=size, timeout_us=timeout_us)
            sent.append(request)
            if cancel == 0:
                world.run(0.1)
                world.cancel(request)
        except InvalidArgumentError:
            if start:
                raise
        world.run(pause_ms)
        in_slots = [slot.sequence for batcher in world.scheduler._batchers.values() for slot in batcher.slots]
        held = [sequence for sequence in in_slots if sequence is not None]
        assert len(set(held)) == len(held), "a sequence in two slots"
        assert len(held) + len(world.scheduler._free) == given.instances * given.slots, "a slot was lost"
        assert not (world.scheduler._backlog and world.scheduler._free), "a free slot beside a backlog"

    # All that clients did is done: idle sequences expire, the backlog moves up, and nothing is left.
    world.run(len(steps) * (IDLE_MS + 200) + 1000)
    assert not world.in_flight, "a request was lost"
    assert world.scheduler.queued == 0
    assert not world.scheduler._live
    assert not world.scheduler._backlog
    assert not world.scheduler._idle
    assert len(world.scheduler._free) == given.instances * given.slots
    for request in sent:
        [error] = world.answers[request.id]
        assert error is None or isinstance(error, RequestCancelledError | UnavailableError)
        assert error is not None or request.id in executed


@given(chosen(), st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=15))
def test_steps_of_iterative_sequences_are_never_lost(given: Settings, requests: list[tuple[int, int]]) -> None:
    strategy = Settings(
        "iterative_sequence: true " + given.strategy,
        given.max_batch_size,
        given.instances,
        given.compute_ms,
        given.slots,
    )
    world = strategy.world(steps=3)
    cancelled = set()
    for number, (size, pause_ms) in enumerate(requests):
        request = world.send(str(number), size=size)
        world.run(pause_ms)
        if pause_ms == 6:
            world.cancel(request)
            cancelled.add(request.id)
    world.run(len(requests) * 500)
    assert not world.in_flight
    assert len(world.scheduler._free) == given.instances * given.slots
    assert world.scheduler.queued == 0
    times = [tag for batch in world.batches for tag in batch if tag is not None]
    for tag, [error] in world.answers.items():
        assert (error is None and times.count(tag) == 3) or tag in cancelled


@given(chosen(), st.integers(2, 12))
def test_no_sequence_of_the_backlog_starves(given: Settings, count: int) -> None:
    """Clients that never pause cannot keep a slot for longer than their sequences are."""
    world = given.world()
    for id in range(1, count + 1):
        for step in range(3):
            world.send(f"{id}.{step}", id, start=step == 0, end=step == 2)
    world.run(count * 3 * (given.compute_ms + 5))
    assert all(answers == [None] for answers in world.answers.values())
    firsts = [tag for batch in world.batches for tag in batch if tag is not None and tag.endswith(".0")]
    if given.instances == 1:
        assert firsts == sorted(firsts, key=lambda tag: int(tag.split(".")[0]))
