"""Implicit state, in an engine with a model that adds up what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trivet import hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
)
from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_scheduler_sequence import plugin

pytestmark = pytest.mark.anyio

STRATEGIES = pytest.mark.parametrize("strategy", ["direct {}", "oldest { max_candidate_sequences: 8 }"])
TOTAL = 'state { input_name: "total" output_name: "next_total" data_type: TYPE_FP32 dims: [ 1 ] %s }'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Summing(ArrayInstance):
    """``y`` and the next ``total`` are ``total`` + ``x``; ``history``, where there is one, grows by ``x``.

    A negative ``x`` fails the execution.
    """

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        x = arrays["x"]
        if (x < 0).any():
            raise ValueError("a negative number")
        results: dict[str, Any] = {"y": x}
        if "total" in arrays:
            results["y"] = results["next_total"] = arrays["total"] + x
        if "history" in arrays:
            results["y"] = results["next_history"] = np.concatenate([arrays["history"], x], axis=-1)
        if "text" in arrays:
            results["next_text"] = arrays["text"] + b"!"
            results["y"] = np.array([[len(text)] for text in results["next_text"][:, 0]], np.float32)
        return {name: results[name] for name in outputs}


class OnDevice:
    """What a framework gives for a tensor in the memory of a GPU, where the host cannot read it."""

    shape = (1, 1)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("the state was copied to the host")


class Counting(ArrayInstance):
    """``y`` is how many steps the state, which it never reads, has gone through; it is in ``states`` by number."""

    def __init__(self) -> None:
        self.states: list[OnDevice] = []

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        state = inputs["total"]
        steps = self.states.index(state.dlpack()) + 1 if state.on_device else 0  # type: ignore[arg-type]
        self.states[steps:] = [OnDevice()]
        return {"y": np.array([[steps]], np.float32), "next_total": self.states[steps]}


class SummingBackend(Backend, BackendModel):
    def __init__(self) -> None:
        self.make: Callable[[], BackendInstance] = Summing

    def load(self, context: ModelContext) -> BackendModel:
        self.make = Counting if "counting" in context.parameters else Summing
        return self

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return self.make()


class SummingPlugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="summing", factory=SummingBackend)]


Serve = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Runs an engine with the model ``m`` of that ``sequence_batching``."""

    @asynccontextmanager
    async def serving(
        batching: str,
        *,
        max_batch_size: int = 4,
        dims: int = 1,
        files: Mapping[str, bytes] | None = None,
        more: str = "",
    ) -> AsyncIterator[Engine]:
        (tmp_path / "m" / "1").mkdir(parents=True)
        (tmp_path / "m" / "config.pbtxt").write_text(
            f"""
            backend: "summing" max_batch_size: {max_batch_size}
            input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
            output {{ name: "y" data_type: TYPE_FP32 dims: [ {dims} ] }}
            {more}
            sequence_batching {{ {batching} }}
            """
        )
        for name, data in (files or {}).items():
            path = tmp_path / "m" / "initial_state" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        registry = PluginRegistry.of(summing=SummingPlugin(), sequence=plugin)
        async with running_engine(tmp_path, registry=registry) as engine:
            yield engine

    return serving


async def step(engine: Engine, id: int, x: float, *, start: bool = False, end: bool = False) -> dict[str, Any]:
    batched = engine.model("m").spec.max_batch_size > 0
    array = np.array([[x]] if batched else [x], np.float32)
    request = InferenceRequest(
        "m", {"x": Tensor.from_numpy("x", array)}, correlation_id=id, sequence_start=start, sequence_end=end
    )
    response = await engine.infer(request)
    if response.error is not None:
        raise response.error
    return {output.name: output.numpy().ravel().tolist() for output in response.outputs}


async def total(engine: Engine, id: int, x: float, **place: bool) -> float:
    answer = await step(engine, id, x, **place)
    assert list(answer) == ["y"]
    [y] = answer["y"]
    return float(y)


@STRATEGIES
async def test_each_sequence_has_a_state_of_its_own(serve: Serve, strategy: str) -> None:
    async with serve(strategy + TOTAL % "") as engine:
        ids = range(1, 5)
        for round in (1, 2, 3):
            totals = await asyncio.gather(*(total(engine, id, 10 * id, start=round == 1, end=round == 3) for id in ids))
            assert totals == [10 * id * round for id in ids]
        [statistics] = engine.statistics("m")
        assert statistics.execution_count < statistics.inference_count == 12


@STRATEGIES
async def test_a_start_brings_the_initial_state_back(serve: Serve, strategy: str) -> None:
    async with serve(strategy + TOTAL % "") as engine:
        assert await total(engine, 1, 5, start=True) == 5
        assert await total(engine, 1, 5) == 10
        assert await total(engine, 1, 5, start=True) == 5


@STRATEGIES
async def test_a_step_that_failed_leaves_the_state_as_it_was(serve: Serve, strategy: str) -> None:
    async with serve(strategy + TOTAL % "") as engine:
        assert await total(engine, 1, 5, start=True) == 5
        with pytest.raises(TrivetError, match="a negative number"):
            await total(engine, 1, -1)
        assert await total(engine, 1, 5) == 10


async def test_a_model_without_batches_has_states_without_a_batch_dimension(serve: Serve) -> None:
    async with serve(TOTAL % "", max_batch_size=0) as engine:
        assert await total(engine, 1, 5, start=True) == 5
        assert await total(engine, 1, 5, end=True) == 10


@pytest.mark.parametrize(
    ("initial", "files", "expected"),
    [
        ('initial_state { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true name: "zero" }', {}, 1),
        (
            'initial_state { data_type: TYPE_FP32 dims: [ 1 ] data_file: "seven" name: "seven" }',
            {"seven": np.array([7, 8], np.float32).tobytes()},
            8,
        ),
    ],
)
async def test_the_initial_state_is_zero_or_in_a_file(
    serve: Serve, initial: str, files: Mapping[str, bytes], expected: float
) -> None:
    async with serve(TOTAL % initial, files=files) as engine:
        assert await total(engine, 1, 1, start=True) == expected
        assert await total(engine, 2, 1, start=True) == expected
        assert await total(engine, 1, 1) == expected + 1


TEXT = """
state { input_name: "text" output_name: "next_text" data_type: TYPE_STRING dims: [ 1 ]
        initial_state { data_type: TYPE_STRING dims: [ 1 ] %s name: "text" } }
"""


@pytest.mark.parametrize(("source", "length"), [("zero_data: true", 0), ('data_file: "abc"', 3)])
async def test_a_state_may_be_text(serve: Serve, source: str, length: int) -> None:
    async with serve(TEXT % source, files={"abc": b"\3\0\0\0abc"}) as engine:
        assert await total(engine, 1, 0, start=True) == length + 1
        assert await total(engine, 1, 0) == length + 2


HISTORY = """
state { input_name: "history" output_name: "next_history" data_type: TYPE_FP32 dims: [ -1 ] %s
        initial_state { data_type: TYPE_FP32 dims: [ 0 ] zero_data: true name: "nothing" } }
"""


@STRATEGIES
@pytest.mark.parametrize("memory", ["", "use_same_buffer_for_input_output: true use_growable_memory: true"])
async def test_a_state_grows_and_those_of_one_size_are_batched(serve: Serve, strategy: str, memory: str) -> None:
    async with serve(strategy + HISTORY % memory, dims=-1) as engine:
        assert await step(engine, 1, 1, start=True) == {"y": [1]}
        for x in (2, 3):
            both = await asyncio.gather(step(engine, 1, x), step(engine, 2, x, start=x == 2))
            assert both == [{"y": list(range(1, x + 1))}, {"y": list(range(2, x + 1))}]


async def test_a_state_that_is_an_output_too_is_answered(serve: Serve) -> None:
    more = 'output { name: "next_total" data_type: TYPE_FP32 dims: [ 1 ] }'
    async with serve(TOTAL % "", more=more) as engine:
        assert await step(engine, 1, 5, start=True) == {"y": [5], "next_total": [5]}
        assert await step(engine, 1, 5) == {"y": [10], "next_total": [10]}


async def test_a_state_stays_on_its_device(serve: Serve) -> None:
    counting = 'parameters { key: "counting" value { string_value: "1" } }'
    async with serve("oldest {}" + TOTAL % "", more=counting) as engine:
        assert [await total(engine, 1, 0, start=step == 0) for step in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            'initial_state { data_type: TYPE_FP32 dims: [ -1 ] zero_data: true name: "n" }',
            "'initial_state' field for state input name 'total' contains variable dimensions.",
        ),
        (
            'initial_state { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true name: "n" }',
            "'initial_state' dim for input name 'total' doesn't match 'state' dim description. 2 != 1",
        ),
        (
            'initial_state { data_type: TYPE_FP32 dims: [ 1 ] name: "n" }',
            "initial_state setting expects state 'total' to have state_data set",
        ),
        (
            'initial_state { data_type: TYPE_FP32 dims: [ 1 ] data_file: "short" name: "n" }',
            "initial_state setting expects 4 bytes, but the data provided from short only has 3 bytes.",
        ),
        (
            'initial_state { data_type: TYPE_FP32 dims: [ 1 ] data_file: "none" name: "n" }',
            "failed to open text file for read",
        ),
        ("use_growable_memory: true", "In order to 'use_growable_memory', you must also enable"),
    ],
)
async def test_an_initial_state_that_cannot_be_fails_the_load(serve: Serve, state: str, message: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        async with serve(TOTAL % state, files={"short": b"123"}):
            pass
    assert message in str(raised.value)


async def test_a_server_that_drains_serves_the_backlog_and_waits_for_no_silent_client(serve: Serve) -> None:
    hour = "max_sequence_idle_microseconds: 3600000000 "
    async with serve(f"oldest {{ max_candidate_sequences: 1 }} {hour}" + TOTAL % "") as engine:
        assert await total(engine, 1, 5, start=True) == 5
        waiting = asyncio.ensure_future(total(engine, 2, 7, start=True))
        await asyncio.sleep(0)
        engine.begin_drain()
        assert await engine.drained(30) == 0
        assert await waiting == 7
