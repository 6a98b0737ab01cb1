"""What a trace holds: one entry for each request, with its times, its parent and how it ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import Execution, InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet.trace_file import entries
from trivet.trace_settings import TraceOptions, TraceSettings, trace_options
from trivet.traced import COLUMNS, ROW, PlainKind, PlainTrace, Trace, TracedRequest
from trivet.tracing import Sampler, TraceSink

pytestmark = pytest.mark.anyio

MODELS = {"double": "", "requests": 'parameters [{ key: "contract" value { string_value: "requests" } }]'}


class Kept(TraceSink):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def add(self, trace: Trace) -> None:
        self.traces.append(trace)

    @property
    def requests(self) -> list[TracedRequest]:
        return [request for trace in self.traces for request in trace.requests]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, config in MODELS.items():
        folder = tmp_path / "models" / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.arith").write_text("2.0")
        (folder / "config.pbtxt").write_text(f'backend: "arithmetic" max_batch_size: 8 {config}')
    return tmp_path / "models"


def running(repository: Path, plugin: ArithmeticPlugin, options: TraceOptions) -> Any:
    return running_engine(repository, registry=PluginRegistry.of(arithmetic=plugin), trace=options)


@pytest.fixture
async def engine(repository: Path, plugin: ArithmeticPlugin) -> AsyncIterator[Engine]:
    settings = TraceSettings(level=frozenset({"TIMESTAMPS"}), rate=1, file="none")
    async with running(repository, plugin, TraceOptions(settings=settings)) as engine:
        engine.tracing.use(Kept())
        yield engine


@pytest.fixture
def kept(engine: Engine) -> Kept:
    assert isinstance(engine.tracing.sink, Kept)
    return engine.tracing.sink


def asking(x: list[float], model: str = "double", **fields: Any) -> InferenceRequest:
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", np.array([x], np.float32))}, **fields)


@pytest.mark.parametrize("model", sorted(MODELS))
async def test_the_times_of_a_request_follow_each_other(engine: Engine, kept: Kept, model: str) -> None:
    await engine.infer(asking([1.0], model, id="a"))
    (traced,) = kept.requests
    times = [
        *(traced.received_ns, traced.taken_ns, traced.queued_ns, traced.compute_start_ns, traced.input_end_ns),
        *(traced.infer_end_ns, traced.compute_end_ns, traced.answered_ns, *traced.sends[0]),
    ]
    assert times == sorted(times)
    assert all(times)
    assert (traced.request_id, traced.model_name, traced.model_version, traced.batch_size) == ("a", model, 1, 1)
    assert traced.computed
    assert traced.error is None


async def test_a_request_that_fails_is_traced_with_its_error(engine: Engine, kept: Kept) -> None:
    await engine.infer(asking([-1.0]))
    assert "negative input" in str(kept.requests[0].error)


async def test_a_request_that_is_refused_is_traced_with_its_error(engine: Engine, kept: Kept) -> None:
    request = InferenceRequest("double", {})
    with pytest.raises(InvalidArgumentError):
        engine.submit(request)
    (traced,) = kept.requests
    assert isinstance(traced.error, InvalidArgumentError)
    assert traced.queued_ns == 0


async def test_a_request_that_its_scheduler_stumbles_over_is_traced_with_its_error(
    engine: Engine, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: InferenceRequest) -> None:
        raise TypeError("not a number")

    monkeypatch.setattr(engine.model("double").scheduler, "enqueue", stumble)
    with pytest.raises(InternalError):
        engine.submit(asking([1.0]))
    (traced,) = kept.requests
    assert str(traced.error) == "model 'double' failed to queue the request: TypeError: not a number"


async def test_a_request_that_is_cancelled_is_traced_once(engine: Engine, kept: Kept, plugin: ArithmeticPlugin) -> None:
    with plugin.journal.gate:
        request = asking([1.0])
        engine.submit(request)
        engine.cancel(request)
    assert [str(traced.error) for traced in kept.requests] == ["[request id: <id_unknown>] Cancelled"]
    await engine.infer(asking([1.0]))
    assert len(kept.requests) == 2


async def test_what_a_model_asks_for_a_request_is_in_its_trace(
    engine: Engine, kept: Kept, plugin: ArithmeticPlugin
) -> None:
    """A request that is being executed, and another that is made for it."""
    with plugin.journal.gate:
        first = asking([1.0])
        engine.submit(first)
        made = asking([2.0], "requests")
        made.origin = Execution([first])
        inner = await to_thread.run_sync(lambda: _begin(engine, made))
        assert not kept.traces
    await to_thread.run_sync(inner)
    await engine.infer(asking([3.0]))
    trace = kept.traces[0]
    assert [(each.model_name, each.parent_id) for each in trace.requests] == [
        ("double", 0),
        ("requests", trace.requests[0].id),
    ]


def _begin(engine: Engine, request: InferenceRequest) -> Any:
    """Submit from a model's thread; the result waits for the response."""
    from threading import Event

    done = Event()
    engine._caller.submit(request, lambda _: done.set())
    return lambda: done.wait(30)


async def test_a_request_that_is_not_chosen_has_no_trace_nor_have_those_it_leads_to(engine: Engine, kept: Kept) -> None:
    engine.tracing.update("", {"rate": 2})
    first, second = asking([1.0]), asking([1.0])
    await engine.infer(first)
    await engine.infer(second)
    assert first.trace is None
    assert second.trace is not None
    assert len(kept.traces) == 1


async def test_files_are_cut_as_the_settings_say(repository: Path, plugin: ArithmeticPlugin, tmp_path: Path) -> None:
    options = trace_options(
        [f"triton,file={tmp_path / 'trace'}", "triton,log-frequency=2", "rate=1", "level=TIMESTAMPS", "level=TENSORS"]
    )
    async with running(repository, plugin, options) as engine:
        for index in range(5):
            await engine.infer(asking([float(index)], id=str(index)))
    files = [json.loads((tmp_path / f"trace.{index}").read_text()) for index in range(3)]
    assert [[entry["request_id"] for entry in each if "model_name" in entry] for each in files] == [
        *(["0", "1"], ["2", "3"], ["4"]),
    ]
    assert files[2][-1]["tensor"] == {"name": "y", "data": "8", "shape": "1,1", "dtype": "FP32"}


async def test_one_file_grows_and_is_json_at_any_time(
    repository: Path, plugin: ArithmeticPlugin, tmp_path: Path
) -> None:
    options = trace_options([f"triton,file={tmp_path / 'trace'}", "rate=1", "level=TIMESTAMPS"])
    async with running(repository, plugin, options) as engine:
        for index in range(250):
            await engine.infer(asking([1.0], id=str(index)))
    written = json.loads((tmp_path / "trace").read_text())
    assert [entry["request_id"] for entry in written if "model_name" in entry] == list(map(str, range(250)))


async def test_a_file_that_cannot_be_written_costs_a_line_in_the_log(
    repository: Path, plugin: ArithmeticPlugin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = trace_options([f"triton,file={tmp_path / 'no' / 'trace'}", "rate=1", "level=TIMESTAMPS"])
    async with running(repository, plugin, options) as engine:
        response = await engine.infer(asking([1.0]))
    assert response.error is None
    assert "1 traces are lost: cannot write" in caplog.text


def plain(*, name: str = "m", protocol: str = "HTTP", id: str = "") -> PlainTrace:
    """A row of numbers that differ from each other."""
    return PlainKind(name, 3, 2, protocol), ROW.pack(*range(1_000, 1_000 + len(COLUMNS))), id


@pytest.mark.parametrize("protocol", ["HTTP", "GRPC", ""])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_plain_trace_is_written_like_any_other(protocol: str, timestamps: bool) -> None:
    one, other = plain(protocol=protocol), plain(name='100 % "\0" 1000', protocol=protocol, id="a")
    for trace in (one, other):
        traced = TracedRequest.of(trace)
        whole = Trace(Sampler(TraceSettings()), (traced,))
        assert ",".join(entries([trace], timestamps)) == ",".join(entries([whole], timestamps))
    written = json.loads(f"[{','.join(entries([one, other, one], timestamps))}]")
    assert [entry["model_name"] for entry in written if "model_name" in entry] == ["m", '100 % "\0" 1000', "m"]


async def test_a_request_that_is_like_most_is_traced_as_a_row(engine: Engine) -> None:
    class Rows(Kept):
        def add_plain(self, trace: PlainTrace, sampler: Sampler) -> None:
            rows.append(trace)

    rows: list[PlainTrace] = []
    kept = Rows()
    engine.tracing.use(kept)
    request = asking([1.0], id="a")
    await engine.infer(request)
    (row,) = rows
    traced = TracedRequest.of(row)
    for name in ("received_ns", "queued_ns", "compute_start_ns", "input_end_ns", "infer_end_ns", "compute_end_ns"):
        assert getattr(traced, name) == getattr(request, name)
    assert row[0] == ("double", 1, 1, "")
    # What has more to say comes whole.
    await engine.infer(asking([-1.0]))
    with_context = asking([1.0])
    with_context.trace_context = {"traceparent": "x"}
    await engine.infer(with_context)
    engine.tracing.update("", {"level": frozenset({"TIMESTAMPS", "TENSORS"})})
    await engine.infer(asking([1.0]))
    assert len(rows) == 1
    failed, called, with_tensors = kept.requests
    assert failed.error is not None
    assert called.context == {"traceparent": "x"}
    assert [tensor.name for tensor in with_tensors.tensors] == ["x", "y"]
