"""The rate limiter over simulated instances: they end when the test says so, and nothing else is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.rate_limiter import LimitedModel, LimitedScheduler, RateLimiter
from trivet.resources import Resource, ResourceSize, Share
from trivet.scheduling import Batch, SchedulableInstance, Scheduler


class Simulated:
    """An instance that is given one batch at a time."""

    def __init__(self, name: str, share: Share) -> None:
        self.name = name
        self.share = share
        self.executing: Batch | None = None
        self.executed: list[Batch] = []
        self.submit: Callable[[Batch], None] = self.begin

    def begin(self, batch: Batch) -> None:
        assert self.executing is None, "an instance has one thread"
        self.executing = batch


class Model:
    """A model version whose instances are simulated."""

    def __init__(self, limiter: RateLimiter, *shares: Share) -> None:
        self.instances = [Simulated(f"i_{number}", share) for number, share in enumerate(shares)]
        self.limited: LimitedModel = limiter.add([(instance, instance.share) for instance in self.instances])

    def submit(self, instance: int | None = None) -> Batch:
        """A batch for any instance, or for one."""
        batch = Batch([InferenceRequest("m", {})])
        (self.limited.submit_any if instance is None else self.instances[instance].submit)(batch)
        return batch

    def finish(self, instance: Simulated, tell: Callable[[], None] = lambda: None) -> None:
        batch = instance.executing
        assert batch is not None
        instance.executing = None
        instance.executed.append(batch)
        self.limited.finish(instance, tell)

    @property
    def executing(self) -> list[Simulated]:
        return [instance for instance in self.instances if instance.executing is not None]


def on_device(number: int = 1, *, name: str = "R", device: int = 0, priority: int = 1) -> Share:
    return Share({(device, name): number}, priority)


def everywhere(number: int = 1, *, name: str = "R", priority: int = 1) -> Share:
    return Share({(None, name): number}, priority)


def run(models: Sequence[Model], turns: int) -> Counter[Model]:
    """End executions one after the other, each model always with work; count whose they were."""
    counted: Counter[Model] = Counter()
    for model in models:
        model.submit()
        model.submit()
    for _ in range(turns):
        model, instance = next((model, instance) for model in models for instance in model.executing)
        counted[model] += 1
        model.finish(instance, lambda model=model: model.submit())  # type: ignore[misc]
    return counted


# --- resources


def test_who_wants_nothing_never_waits() -> None:
    limiter = RateLimiter()
    greedy, free = Model(limiter, on_device()), Model(limiter, Share())
    greedy.submit()
    greedy.submit()
    free.submit()
    assert len(greedy.executing) == len(free.executing) == 1


def test_two_models_that_share_one_global_resource_take_turns() -> None:
    limiter = RateLimiter()
    a, b = Model(limiter, everywhere()), Model(limiter, everywhere())
    a.submit()
    b.submit()
    assert (len(a.executing), len(b.executing), b.limited.waiting()) == (1, 0, 1)
    a.finish(a.instances[0])
    assert (len(a.executing), len(b.executing), b.limited.waiting()) == (0, 1, 0)


def test_a_resource_of_a_device_is_there_on_each() -> None:
    limiter = RateLimiter()
    model = Model(limiter, on_device(device=0), on_device(device=0), on_device(device=1))
    for _ in range(3):
        model.submit()
    assert [instance.name for instance in model.executing] == ["i_0", "i_2"]


def test_what_nobody_sized_is_as_large_as_the_most_that_an_instance_wants() -> None:
    limiter = RateLimiter()
    small, large = Model(limiter, *[on_device(2)] * 4), Model(limiter, on_device(5))
    for _ in range(4):
        small.submit()
    assert len(small.executing) == 2  # 4 of 5
    large.limited.close()
    small.finish(small.executing[0])
    assert len(small.executing) == 1  # 2 of 2


def test_a_model_that_wants_more_makes_room_for_those_that_wait() -> None:
    limiter = RateLimiter()
    small = Model(limiter, on_device(1), on_device(1))
    small.submit()
    small.submit()
    assert len(small.executing) == 1
    Model(limiter, on_device(2))
    assert len(small.executing) == 2


@pytest.mark.parametrize(
    ("sizes", "share", "at_once"),
    [
        (["R:2"], on_device(1), 2),
        (["R:2:0"], on_device(1), 2),
        (["R:1", "R:3:0"], on_device(1), 3),
        (["R:1:0", "R:3:1"], everywhere(1), 3),
        (["R:1", "R:2"], on_device(1), 2),
        (["other:9"], on_device(1), 1),
    ],
)
def test_the_operator_sizes_a_resource(sizes: list[str], share: Share, at_once: int) -> None:
    model = Model(RateLimiter([ResourceSize.parse(size) for size in sizes]), *[share] * 5)
    for _ in range(5):
        model.submit()
    assert len(model.executing) == at_once


def test_an_instance_that_could_never_execute_is_refused() -> None:
    limiter = RateLimiter([ResourceSize("R", 1)])
    with pytest.raises(InvalidArgumentError) as raised:
        Model(limiter, on_device(1), on_device(2))
    assert raised.value.message == (
        'Resource count for "R" is limited to 1 which will prevent scheduling of one or more model instances, the'
        " minimum required count is 2"
    )
    served = Model(limiter, on_device(1))
    served.submit()
    assert served.executing


def test_a_resource_is_of_a_device_or_of_all() -> None:
    limiter = RateLimiter()
    model = Model(limiter, on_device())
    with pytest.raises(InvalidArgumentError, match='Resource "R" is present as both global and device-specific'):
        Model(limiter, everywhere())
    with pytest.raises(InvalidArgumentError, match='Resource "S" is present as both'):
        Model(limiter, everywhere(name="S"), on_device(name="S"))
    model.limited.close()
    Model(limiter, everywhere()).submit()


@pytest.mark.parametrize("text", ["", "R", "R:", ":1", "R:one", "R:-1", "R:1:2:3", "R:1:", "R:\N{SUPERSCRIPT TWO}"])
def test_a_malformed_size_is_quoted(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--rate-limit-resource option format is") as raised:
        ResourceSize.parse(text)
    assert raised.value.message.endswith(f"Got {text}")


def test_a_size_may_name_its_device() -> None:
    assert ResourceSize.parse("R1:10") == ResourceSize("R1", 10)
    assert ResourceSize.parse("R2:8:1") == ResourceSize("R2", 8, device=1)


# --- turns


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_turns_are_as_many_as_the_priorities_say(priorities: list[int]) -> None:
    limiter = RateLimiter()
    models = [Model(limiter, everywhere(priority=priority)) for priority in priorities]
    counted = run(models, 500)
    weighed = [counted[model] * priority for model, priority in zip(models, priorities, strict=True)]
    assert max(weighed) - min(weighed) <= 2 * max(priorities)


def test_an_instance_of_less_priority_is_the_one_that_idles() -> None:
    model = Model(RateLimiter(), Share(priority=2), Share(priority=1))
    for _ in range(90):
        model.submit()
        model.finish(model.executing[0])
    assert [len(instance.executed) for instance in model.instances] == [30, 60]


def test_who_comes_late_does_not_make_up_for_the_turns_before() -> None:
    limiter = RateLimiter()
    early, late = Model(limiter, everywhere()), Model(limiter, everywhere())
    run([early], 100)
    counted = run([early, late], 20)
    assert abs(counted[early] - counted[late]) <= 2


def test_nor_does_it_when_it_comes_while_the_other_has_nothing_to_do() -> None:
    limiter = RateLimiter()
    early, late = Model(limiter, everywhere()), Model(limiter, everywhere())
    run([early], 100)
    while early.executing:
        early.finish(early.executing[0])
    counted = run([late, early], 20)
    assert abs(counted[early] - counted[late]) <= 2


def test_many_small_ones_do_not_starve_a_large_one() -> None:
    limiter = RateLimiter([ResourceSize("R", 4)])
    small, large = Model(limiter, *[on_device(1)] * 4), Model(limiter, on_device(4, priority=9))
    for _ in range(8):
        small.submit()
    large.submit()
    ended = 0
    while not large.executing:
        small.finish(small.executing[0], lambda: small.submit() and None)
        ended += 1
    assert ended <= 8  # each had at most one more turn
    assert small.executing == []


def test_one_that_waits_for_much_does_not_hold_up_who_wants_something_else() -> None:
    limiter = RateLimiter()
    small, large, other = (
        Model(limiter, on_device(1)),
        Model(limiter, on_device(2)),
        Model(limiter, on_device(name="S")),
    )
    small.submit()
    large.submit()
    other.submit()
    assert (len(small.executing), len(large.executing), len(other.executing)) == (1, 0, 1)


# --- what ends otherwise


def test_a_batch_that_nobody_waits_for_any_more_costs_no_turn() -> None:
    limiter = RateLimiter()
    busy, cancelled = Model(limiter, everywhere()), Model(limiter, everywhere())
    dropped: list[tuple[SchedulableInstance, Batch]] = []
    cancelled.limited.on_dropped = lambda instance, batch: dropped.append((instance, batch))
    busy.submit()
    gone, kept = cancelled.submit(), cancelled.submit()
    gone.requests[0].cancelled = True
    busy.finish(busy.instances[0])
    assert dropped == [(cancelled.instances[0], gone)]
    assert cancelled.instances[0].executing is kept


def test_a_model_that_goes_while_it_executes_keeps_what_it_holds_until_it_has_ended() -> None:
    limiter = RateLimiter()
    going, waiting = Model(limiter, everywhere()), Model(limiter, everywhere())
    going.submit()
    going.submit()
    waiting.submit()
    going.limited.close()
    going.limited.close()
    assert not waiting.executing
    going.finish(going.instances[0])
    assert waiting.executing
    assert not going.executing


def test_whatever_a_scheduler_is_asked_reaches_it_through_the_limiter() -> None:
    asked = {name for name in vars(Scheduler) if not name.startswith("_")} - {"orders_responses"}
    assert asked <= vars(LimitedScheduler).keys()


SHARES = st.builds(
    Share,
    st.dictionaries(
        st.sampled_from([(None, "G"), (0, "A"), (1, "A"), (0, "B"), (1, "B")]), st.integers(0, 4), max_size=3
    ),
    st.integers(1, 3),
)
SIZES: Sequence[ResourceSize] = [ResourceSize("A", 5), ResourceSize("B", 4, 0)]


@given(
    sized=st.booleans(),
    shares=st.lists(st.lists(SHARES, min_size=1, max_size=3), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.sampled_from(["any", "one", "finish", "finish", "cancel"]), st.integers(0, 99))),
)
def test_all_is_executed_once_in_order_and_never_more_than_there_is(
    sized: bool, shares: list[list[Share]], steps: list[tuple[str, int]]
) -> None:
    limiter = RateLimiter(SIZES if sized else ())
    models = [Model(limiter, *of_model) for of_model in shares]
    limits = limits_of([share for of_model in shares for share in of_model], sized=sized)
    submitted: dict[Model, list[Batch]] = {model: [] for model in models}

    def check() -> None:
        held: Counter[Resource] = Counter()
        for instance in (instance for model in models for instance in model.executing):
            held.update(instance.share.resources)
        assert all(number <= limits[resource] for resource, number in held.items())

    def finish(number: int) -> bool:
        busy = [(model, instance) for model in models for instance in model.executing]
        if busy:
            model, instance = busy[number % len(busy)]
            model.finish(instance)
        return bool(busy)

    for what, number in steps:
        model = models[number % len(models)]
        if what == "finish":
            finish(number)
        elif what == "cancel" and submitted[model]:
            submitted[model][number % len(submitted[model])].requests[0].cancelled = True
        else:
            submitted[model].append(model.submit(number % len(model.instances) if what == "one" else None))
        check()
    ended = 0
    while finish(0):
        check()
        ended += 1
        assert ended <= len(steps), "more is executed than was submitted"
    for model in models:
        executed = Counter(batch for instance in model.instances for batch in instance.executed)
        assert set(executed.values()) <= {1}
        left = [batch for batch in submitted[model] if batch not in executed]
        assert all(batch.requests[0].cancelled for batch in left)
        assert model.limited.waiting() == 0


def limits_of(shares: Sequence[Share], *, sized: bool) -> Mapping[Resource, int]:
    """How much there is, told in another way than the limiter does."""
    limits: dict[Resource, int] = {}
    for share in shares:
        for resource, number in share.resources.items():
            limits[resource] = max(limits.get(resource, 0), number)
    if sized:
        limits |= {resource: 5 for resource in limits if resource[1] == "A"}
        limits |= {resource: 4 for resource in limits if resource == (0, "B")}
    return limits
