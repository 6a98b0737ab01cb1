"""The kits find what is wrong with a plugin, and say which rule it broke."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trivet import hookimpl
from trivet.backend import ArrayInstance, Backend, BackendModel, InstanceContext, ModelContext, RequestInstance
from trivet.datatypes import FP32
from trivet.errors import InvalidArgumentError
from trivet.hookspecs import BackendPlugin, ExporterPlugin, SchedulerPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.scheduling import Batch, DefaultScheduler, Scheduler
from trivet.service import Exporter, ServerContext
from trivet.tensor import Tensor
from trivet.testing import RunningServer
from trivet.testing.conformance import (
    BackendConformance,
    ExporterConformance,
    SchedulerConformance,
    Stream,
    StreamingBackendConformance,
    backend,
    leaks,
    requests,
)
from trivet.testing.conformance.requests import Arrays

KEPT: list[object] = []
"""What a backend that leaks holds on to."""
RELEASED = threading.Event()
"""What a backend that hangs waits for."""


class ScaleBackend(Backend):
    """``y = w x``, with ``w`` in a text file. ``fault`` is what is wrong with it."""

    fault = ""

    def auto_complete(self, context: ModelContext) -> None:
        if not context.config.input:
            context.config.max_batch_size = 8
            context.config.input.add(name="x", data_type=FP32.config_value, dims=[3])
            context.config.output.add(name="y", data_type=FP32.config_value, dims=[3])

    def load(self, context: ModelContext) -> BackendModel:
        try:
            scale = float((context.version_path / "scale.txt").read_text())
        except (OSError, ValueError) as error:
            if self.fault != "loads anything":
                raise InvalidArgumentError(f"'{context.version_path}/scale.txt' has no number: {error}") from error
            scale = 0
        model = ScaleModel(scale, self.fault)
        if self.fault == "leaks":
            KEPT.append(model)
        return model


class ScaleModel(BackendModel):
    def __init__(self, scale: float, fault: str) -> None:
        self.scale = scale
        self.fault = fault

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        return ScaleInstance(self)


class ScaleInstance(ArrayInstance):
    def __init__(self, model: ScaleModel) -> None:
        self.model = model

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Any]:
        x = inputs["x"].numpy()
        if (x < 0).any():
            raise InvalidArgumentError("x must not be negative")
        if self.model.fault == "writes into inputs":
            x += 1
            return {"y": (self.model.scale * (x - 1)).astype(np.float32)}
        if self.model.fault == "hangs":
            RELEASED.wait()
        if self.model.fault == "mixes rows":
            x = x[::-1]
        if self.model.fault == "wrong values":
            x = x + 1
        return {"y": (self.model.scale * x).astype(np.float32)}

    def close(self) -> None:
        if self.model.fault == "raises in close":
            raise RuntimeError("cannot close")
        if self.model.fault == "hangs in close":
            RELEASED.wait()


class CountingBackend(Backend):
    """A response for each number below ``x``. ``fault`` is what is wrong with it."""

    fault = ""

    def load(self, context: ModelContext) -> BackendModel:
        file = context.version_path / "count.txt"
        if file.exists() and file.read_text() != "count":
            raise InvalidArgumentError(f"'{context.version_path}/count.txt' does not say 'count'")
        return CountingModel()


class CountingModel(BackendModel):
    def create_instance(self, context: InstanceContext) -> RequestInstance:
        return CountingInstance()


class CountingInstance(RequestInstance):
    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            numbers = list(range(int(request.inputs["x"].numpy()[0])))
            fault = CountingBackend.fault
            if fault == "loses the last":
                numbers.pop()
            if fault == "disorder":
                numbers.reverse()
            for number in numbers:
                y = Tensor.from_numpy("y", np.array([number], np.int32))
                request.respond(InferenceResponse([y], final=False))
            request.respond(InferenceResponse())
            if fault == "goes on":
                request.respond(InferenceResponse())


class HoardingScheduler(DefaultScheduler):
    """Keeps every third request for itself."""

    count = 0

    def enqueue(self, request: InferenceRequest) -> None:
        self.count += 1
        if self.count % 3:
            super().enqueue(request)


class RepeatingScheduler(Scheduler):
    """Executes everything twice."""

    def enqueue(self, request: InferenceRequest) -> None:
        for _ in range(2):
            self.context.submit_any(Batch((request,)))

    @property
    def queued(self) -> int:
        return 0


class CountsExporter(Exporter):
    """Tells of models to whoever asks it."""

    made: CountsExporter

    def __init__(self, context: ServerContext) -> None:
        self._engine = context.engine
        CountsExporter.made = self

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self, grace_s: float) -> None:
        """Nothing to close."""

    def text(self) -> str:
        return " ".join(f"{model.name}={model.success.count}" for model in self._engine.statistics())


class Plugin:
    def __init__(self, scheduler: type[Scheduler] = DefaultScheduler) -> None:
        self._scheduler = scheduler

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [
            BackendPlugin(name="scale", factory=ScaleBackend, description="Scales", model_filenames=("scale.txt",)),
            BackendPlugin(name="count", factory=CountingBackend, description="Counts"),
        ]

    @hookimpl
    def trivet_exporters(self) -> Sequence[ExporterPlugin]:
        return [ExporterPlugin(name="counts", factory=CountsExporter, description="Counts")]

    @hookimpl
    def trivet_schedulers(self) -> Sequence[SchedulerPlugin]:
        return [SchedulerPlugin(name="dynamic_batching", factory=self._scheduler, description="Schedules")]


class ScaleKit(BackendConformance):
    backend = "scale"

    def write_model(self, folder: Path) -> None:
        (folder / "scale.txt").write_text("3")

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": np.random.default_rng(seed).random((rows, 3), np.float32)}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"y": 3 * inputs["x"]}

    def failing_inputs(self) -> Arrays:
        return {"x": np.full((1, 3), -1, np.float32)}


class CountingKit(StreamingBackendConformance):
    backend = "count"
    batching = False
    config = """
        input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
        model_transaction_policy { decoupled: true }
    """

    def write_model(self, folder: Path) -> None:
        (folder / "count.txt").write_text("count")

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": np.array([1 + seed % 5], np.int32)}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] - 1}

    def stream(self) -> Stream:
        return Stream(self.inputs(1, 4), [{"y": np.array([number], np.int32)} for number in range(5)])


class ExporterKit(ExporterConformance):
    exporter = "counts"

    def exported(self, server: RunningServer) -> str:
        text: str = server.call(CountsExporter.made.text)
        return text


class SchedulerKit(SchedulerConformance):
    scheduler = "dynamic_batching"
    config = "dynamic_batching { }"
    seeds = 5


def install(monkeypatch: pytest.MonkeyPatch, plugin: Plugin) -> None:
    """Make the registry of what is installed one of this plugin alone."""
    monkeypatch.setattr(PluginRegistry, "discover", classmethod(lambda cls: PluginRegistry.of(own=plugin)))


def run(kit: type) -> list[str]:
    """Run all tests of a kit that take no argument; what failed, with the first line of its message."""
    broken = []
    for name in dir(kit):
        if name.startswith("test_") and name != "test_a_model_that_cannot_load_says_why_and_hurts_nobody":
            try:
                getattr(kit(), name)()
            except pytest.skip.Exception:
                pass
            except pytest.fail.Exception as failure:
                broken.append(f"{name}: {failure}")
    return broken


def test_a_good_backend_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    assert run(ScaleKit) == []
    for files in ("missing", "corrupt"):
        ScaleKit().test_a_model_that_cannot_load_says_why_and_hurts_nobody(files)


@pytest.mark.parametrize(
    ("fault", "test", "rule"),
    [
        ("wrong values", "test_a_model_loads_and_answers", "a request of one row gets: the expected values"),
        ("mixes rows", "test_rows_do_not_depend_on_their_batch", "a request of 4 rows gets: the expected values"),
        ("leaks", "test_nothing_is_left_of_a_model_that_was_unloaded", "a closed model and its instances are garbage"),
        ("writes into inputs", "test_inputs_stay_as_they_are", "a model leaves its inputs as they are"),
        ("raises in close", "test_a_model_loads_and_answers", "'m_0_0' failed to close: RuntimeError: cannot close"),
        ("raises in close", "test_nothing_is_left_of_a_model_that_was_unloaded", "close() and trim() raise nothing"),
    ],
)
def test_a_fault_of_a_backend_is_found(monkeypatch: pytest.MonkeyPatch, fault: str, test: str, rule: str) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(ScaleBackend, "fault", fault)
    try:
        with pytest.raises(pytest.fail.Exception, match=re.escape(rule)) as caught:
            getattr(ScaleKit(), test)()
        assert "contract: trivet.backend." in str(caught.value)
        assert "(docs/reference/contracts.md#trivetbackend)" in str(caught.value)
    finally:
        KEPT.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # answers a loop that is gone
@pytest.mark.parametrize(
    ("fault", "test", "where"),
    [
        ("hangs", "test_a_model_loads_and_answers", " is in execute, "),
        ("hangs in close", "test_a_model_loads_and_answers", " is in close, "),
        ("hangs in close", "test_nothing_is_left_of_a_model_that_was_unloaded", " is in close, "),
    ],
)
def test_a_backend_that_hangs_is_found_and_does_not_hang_the_test(
    monkeypatch: pytest.MonkeyPatch, fault: str, test: str, where: str
) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(ScaleBackend, "fault", fault)
    for module in (requests, backend):
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(backend, "GRACE_S", 0.1)
    try:
        with pytest.raises(pytest.fail.Exception, match=re.escape(where + __file__)):
            getattr(ScaleKit(), test)()
    finally:
        RELEASED.set()
        assert leaks.eventually(
            lambda: not any(t.name.startswith(("m_0_", "conformance")) for t in threading.enumerate())
        )
        RELEASED.clear()


def test_a_good_backend_that_streams_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    assert run(CountingKit) == []


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("loses the last", "one of six streams at once gets: all its responses"),
        ("disorder", "one of six streams at once gets, as response 1: the expected values"),
    ],
)
def test_a_fault_of_a_stream_is_found(monkeypatch: pytest.MonkeyPatch, fault: str, rule: str) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(CountingBackend, "fault", fault)
    with pytest.raises(pytest.fail.Exception, match=rule):
        CountingKit().test_a_stream_comes_in_order_and_ends()


def test_a_response_after_the_final_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(CountingBackend, "fault", "goes on")
    with pytest.raises(pytest.fail.Exception, match="nothing is answered after its final response"):
        CountingKit().test_a_stream_comes_in_order_and_ends()


def test_a_backend_that_loads_anything_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(ScaleBackend, "fault", "loads anything")
    with pytest.raises(pytest.fail.Exception, match="a model whose files are corrupt does not load"):
        ScaleKit().test_a_model_that_cannot_load_says_why_and_hurts_nobody("corrupt")


def test_a_model_without_files_has_none_that_could_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    monkeypatch.setattr(CountingKit, "write_model", lambda *_: None)
    with pytest.raises(pytest.skip.Exception, match="the model has no files"):
        CountingKit().test_a_model_that_cannot_load_says_why_and_hurts_nobody("missing")


def test_a_backend_that_is_not_installed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PluginRegistry, "discover", classmethod(lambda cls: PluginRegistry.of()))
    with pytest.raises(pytest.fail.Exception, match="an installed package offers 'scale' through an entry point"):
        ScaleKit().test_a_model_loads_and_answers()


def test_an_exporter_needs_no_protocol_to_be_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    assert run(ExporterKit) == []


def test_a_good_scheduler_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin())
    assert run(SchedulerKit) == []


@pytest.mark.parametrize(
    ("scheduler", "rule"),
    [(HoardingScheduler, "nothing waits for more to come"), (RepeatingScheduler, "a request is executed once")],
)
def test_a_fault_of_a_scheduler_is_found(
    monkeypatch: pytest.MonkeyPatch, scheduler: type[Scheduler], rule: str
) -> None:
    install(monkeypatch, Plugin(scheduler))
    with pytest.raises(pytest.fail.Exception, match=rule):
        SchedulerKit().test_every_request_is_answered_once_whatever_happens()
