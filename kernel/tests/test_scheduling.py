"""A scheduler plugin: chosen by the configuration, it decides what shares a batch, and no request is lost on the way.

The scheduler here is the smallest that batches: it waits until two requests are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin, Arrays
from trivet import hookimpl
from trivet.backend import OutputValue, RequestInstance
from trivet.datatypes import FP32
from trivet.engine import Engine
from trivet.errors import Code, RequestCancelledError, ResourceExhaustedError, TrivetError, UnavailableError
from trivet.hookspecs import SchedulerPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.scheduling import Batch, SchedulableInstance, Scheduler, SchedulerContext
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet.throttle import Throttle

pytestmark = pytest.mark.anyio


class Pairs(Scheduler):
    """Executes requests two by two, the instances in turn."""

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self.waiting: list[InferenceRequest] = []
        self.done: list[tuple[str, int]] = []
        self.turn = 0

    def enqueue(self, request: InferenceRequest) -> None:
        if request.parameters.get("refused"):
            raise ResourceExhaustedError("the queue is full")
        if request.parameters.get("late"):
            self.context.call_later(0, partial(self.context.reject, request, UnavailableError("it waited too long")))
            return
        request.on_cancel = self.waiting.remove
        self.waiting.append(request)
        if len(self.waiting) == 2:
            count = sum(waiting.batch_size for waiting in self.waiting)
            bonus = Tensor.from_numpy("bonus", np.arange(count, dtype=np.float32).reshape(count, 1))
            self.submit(Batch(self.waiting, {"bonus": bonus}))
            self.waiting = []

    def submit(self, batch: Batch) -> None:
        for request in batch.requests:
            request.on_cancel = None
        self.context.instances[self.turn % len(self.context.instances)].submit(batch)
        self.turn += 1

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        self.done.append((instance.name, len(batch.requests)))

    @property
    def queued(self) -> int:
        return len(self.waiting)


class AddingBonus(Arrays):
    """``y`` is ``x`` times the factor, and the scheduler's bonus for the row."""

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        y = super().execute(inputs, outputs)["y"]
        return {"y": y + inputs["bonus"].numpy()}


class PairsPlugin:
    @hookimpl
    def trivet_schedulers(self) -> Sequence[SchedulerPlugin]:
        return [
            SchedulerPlugin(name=name, factory=Pairs, dedicated_queues=True) for name in ("dynamic_batching", "pairs")
        ]


CONFIG = """
max_batch_size: 4
dynamic_batching {}
instance_group { name: "pair" count: 2 kind: KIND_CPU }
"""


def add_model(repository: Path, config: str) -> None:
    (repository / "m" / "1").mkdir(parents=True)
    (repository / "m" / "1" / "model.arith").write_text("10")
    (repository / "m" / "config.pbtxt").write_text(config)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ArithmeticPlugin:
    monkeypatch.setattr("arithmetic_backend.Arrays", AddingBonus)
    return ArithmeticPlugin()


@pytest.fixture
async def engine(tmp_path: Path, plugin: ArithmeticPlugin) -> AsyncIterator[Engine]:
    add_model(tmp_path, CONFIG)
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=plugin, pairs=PairsPlugin())) as running:
        yield running


def request(*rows: float, **parameters: bool) -> InferenceRequest:
    x = np.array([[row] for row in rows], np.float32)
    return InferenceRequest("m", {"x": Tensor.from_numpy("x", x)}, parameters=parameters)


async def ask(engine: Engine, asked: InferenceRequest) -> list[list[float]]:
    response = await engine.infer(asked)
    if response.error is not None:
        raise response.error
    return response.outputs[0].numpy().tolist()


def scheduler(engine: Engine) -> Pairs:
    found = engine.model("m").scheduler
    assert isinstance(found, Pairs)
    return found


def named(scheduler: str) -> str:
    parameter = f'parameters {{ key: "trivet.scheduler" value {{ string_value: "{scheduler}" }} }}'
    return CONFIG.replace("dynamic_batching {}", parameter)


async def test_a_parameter_names_a_scheduler_that_no_field_chooses(tmp_path: Path, plugin: ArithmeticPlugin) -> None:
    add_model(tmp_path, named("pairs"))
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=plugin, pairs=PairsPlugin())) as engine:
        assert isinstance(engine.model("m").scheduler, Pairs)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        ("lottery", "unable to find scheduler 'lottery'; installed schedulers are: dynamic_batching, pairs"),
        ("dynamic_batching", "which a configuration chooses with its field 'dynamic_batching'"),
    ],
)
async def test_a_model_is_refused_whose_scheduler_there_is_not(
    tmp_path: Path, plugin: ArithmeticPlugin, scheduler: str, reason: str
) -> None:
    add_model(tmp_path, named(scheduler))
    with pytest.raises(RuntimeError, match=reason):
        async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=plugin, pairs=PairsPlugin())):
            pass


async def test_requests_share_an_execution_and_the_inputs_that_the_scheduler_adds(engine: Engine) -> None:
    assert await asyncio.gather(ask(engine, request(1, 2)), ask(engine, request(3))) == [[[10], [21]], [[32]]]
    [statistics] = engine.statistics("m")
    assert (statistics.execution_count, statistics.inference_count) == (1, 3)
    assert list(statistics.batches) == [3]


async def test_the_scheduler_chooses_the_instance_and_hears_when_it_is_free(
    engine: Engine, plugin: ArithmeticPlugin
) -> None:
    gate = plugin.journal.gate
    with gate:
        asked = [asyncio.ensure_future(ask(engine, request(1))) for _ in range(4)]
        for _ in range(2):  # both instances at once
            await to_thread.run_sync(gate.wait_until_entered)
    await asyncio.gather(*asked)
    assert sorted(scheduler(engine).done) == [("pair_0", 2), ("pair_1", 2)]


async def test_a_request_that_is_refused_costs_no_other(engine: Engine) -> None:
    first = asyncio.ensure_future(ask(engine, request(1)))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhaustedError, match="the queue is full"):
        await ask(engine, request(1, refused=True))
    with pytest.raises(UnavailableError, match="it waited too long"):
        await ask(engine, request(1, late=True))
    assert scheduler(engine).queued == 1
    assert await asyncio.gather(first, ask(engine, request(2))) == [[[10]], [[21]]]


async def test_a_cancelled_request_leaves_its_queue_and_is_answered_once(engine: Engine) -> None:
    answers: list[TrivetError | None] = []

    def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
        answers.append(response.error)

    waiting = request(1)
    waiting.on_response = on_response
    engine.submit(waiting)
    engine.cancel(waiting)
    assert [error and error.code for error in answers] == [Code.CANCELLED]
    assert scheduler(engine).queued == 0
    assert await asyncio.gather(ask(engine, request(1)), ask(engine, request(2))) == [[[10]], [[21]]]
    assert len(answers) == 1


class Countdown(RequestInstance):
    """Takes a request again until its ``x`` is down to nothing."""

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None]:
        return [self.step(request) for request in requests]

    def step(self, request: InferenceRequest) -> InferenceResponse | None:
        x = request.inputs["x"].numpy() - 1
        if x.any():
            request.inputs["x"] = Tensor.from_numpy("x", x)
            request.rescheduled = True
            return None
        return InferenceResponse([Tensor.from_numpy("y", x)])


async def test_a_model_takes_a_request_as_often_as_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arithmetic_backend.Arrays", lambda _: Countdown())
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.arith").write_text("1")
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=ArithmeticPlugin())) as engine:
        response = await engine.infer(InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([5], np.float32))}))
        assert response.outputs[0].numpy() == [0]
        [statistics] = engine.statistics("m")
    assert (statistics.execution_count, statistics.inference_count) == (5, 1)


class Slow(Throttle):
    """The throttle of a caller that reads only when a test says so."""

    def __init__(self) -> None:
        self.full = True
        self.callbacks: list[Callable[[], None]] = []

    def __call__(self) -> None:
        raise AssertionError("nothing is answered in between")

    def holds(self) -> bool:
        return self.full

    def when_room(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


async def test_a_step_waits_for_a_caller_that_reads_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else does: the model goes on with others."""
    monkeypatch.setattr("arithmetic_backend.Arrays", lambda _: Countdown())
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.arith").write_text("1")
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=ArithmeticPlugin())) as engine:
        held, cancelled = (
            InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([3], np.float32))}) for _ in "ab"
        )
        held.throttle, cancelled.throttle = slow, gone = Slow(), Slow()
        first, second = (asyncio.ensure_future(engine.infer(request)) for request in (held, cancelled))
        while not (slow.callbacks and gone.callbacks):  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)
        other = await engine.infer(InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([5], np.float32))}))
        assert other.outputs[0].numpy() == [0]
        assert not first.done()

        engine.cancel(cancelled)
        assert isinstance((await second).error, RequestCancelledError)
        slow.full = gone.full = False
        for callback in slow.callbacks + gone.callbacks:
            callback()
        slow.callbacks.clear()
        assert (await first).outputs[0].numpy() == [0]


class Accumulating(Scheduler):
    """Adds what its requests' executions gave as ``total``, one request at a time."""

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self.total = Tensor.from_numpy("total", np.zeros((1, 1), np.float32))
        self.done: list[str] = []
        self.draining = False

    def enqueue(self, request: InferenceRequest) -> None:
        request.on_done = lambda request: self.done.append(request.id)
        request.inputs = {**request.inputs, "before": self.total}
        self.context.instances[0].submit(Batch([request], extra_outputs={"total": FP32}, whole=True))

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        [request] = batch.requests
        if request in batch.extra_results:
            self.total = batch.extra_results[request]["total"]

    def drain(self) -> None:
        self.draining = True

    @property
    def queued(self) -> int:
        return 0


class AccumulatingPlugin:
    @hookimpl
    def trivet_schedulers(self) -> Sequence[SchedulerPlugin]:
        return [SchedulerPlugin(name="sequence_batching", factory=Accumulating, dedicated_queues=True)]


class SumOfArrays(Arrays):
    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        assert list(outputs) == ["y", "total"]
        y = super().execute({"x": inputs["x"]}, outputs)["y"]
        return {"y": y, "total": inputs["before"].numpy() + inputs["x"].numpy()}


class SumOfRequests(RequestInstance):
    def __init__(self, later: bool) -> None:
        self.later = later

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None]:
        return [self.step(request) for request in requests]

    def step(self, request: InferenceRequest) -> InferenceResponse | None:
        x = request.inputs["x"].numpy()
        if (x < 0).any():
            raise ValueError("negative input")
        total = request.inputs["before"].numpy() + x
        response = InferenceResponse([Tensor.from_numpy("y", x), Tensor.from_numpy("total", total)])
        if not self.later:
            return response
        request.respond(response)
        return None


@pytest.mark.parametrize("contract", ["arrays", "returned", "responded"])
async def test_a_scheduler_gets_the_outputs_it_wants_and_callers_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contract: str
) -> None:
    make = {
        "arrays": SumOfArrays,
        "returned": lambda _: SumOfRequests(later=False),
        "responded": lambda _: SumOfRequests(later=True),
    }
    monkeypatch.setattr("arithmetic_backend.Arrays", make[contract])
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.arith").write_text("1")
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 4 sequence_batching {}")
    registry = PluginRegistry.of(arithmetic=ArithmeticPlugin(), accumulating=AccumulatingPlugin())
    async with running_engine(tmp_path, registry=registry) as engine:
        scheduler = engine.model("m").scheduler
        assert isinstance(scheduler, Accumulating)
        for x in (1, 2, -1, 4):
            response = await engine.infer(
                InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([[x]], "f4"))}, id=str(x))
            )
            assert (response.error is not None) == (x < 0)
            assert [output.name for output in response.outputs] == ([] if x < 0 else ["y"])
        assert scheduler.total.numpy().tolist() == [[7]]
        assert scheduler.done == ["1", "2", "-1", "4"]
    assert scheduler.draining
