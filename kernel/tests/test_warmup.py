"""Warmup: samples are executed on every instance before a model turns ready, and fail its load where they fail."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes, hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
    RequestInstance,
)
from trivet.config import POOL, ModelConfig
from trivet.engine import Engine
from trivet.errors import InvalidArgumentError
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor, object_array
from trivet.testing import running_engine
from trivet.warmup import read_samples

pytestmark = pytest.mark.anyio

TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""


def sample(kind: str = "zero_data: true", *, name: str = "s", more: str = "", input: str = "x") -> str:
    return f"""
    model_warmup {{
      name: "{name}" {more or "batch_size: 1"}
      inputs {{ key: "{input}" value {{ data_type: TYPE_FP32 dims: [ 3 ] {kind} }} }}
    }}
    """


class Recorder(BackendModel):
    """A model that doubles ``x`` and keeps what each execution was given; ``parameters`` choose how it answers."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters
        self.executions: list[tuple[int, list[dict[str, np.ndarray]]]] = []
        self.created: set[int] = set()
        self.closed = 0

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        self.created.add(threading.get_ident())
        return {"arrays": Arrays, "requests": Requests}[self.parameters.get("contract", "arrays")](self)

    def record(self, requests: Sequence[Mapping[str, Tensor]]) -> None:
        arrays = [{name: tensor.numpy().copy() for name, tensor in inputs.items()} for inputs in requests]
        self.executions.append((threading.get_ident(), arrays))
        if any(len(array["x"].T) > 4 for array in arrays):
            raise ValueError("too many elements")


class Arrays(ArrayInstance):
    def __init__(self, model: Recorder) -> None:
        self.model = model

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        self.model.record([inputs])
        return {"y": inputs["x"].numpy() * 2}

    def close(self) -> None:
        self.model.closed += 1


class Requests(RequestInstance):
    """Answers from another thread, ``responses`` times, after ``execute`` returned."""

    def __init__(self, model: Recorder) -> None:
        self.model = model
        self.answered = 0

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        self.model.record([request.inputs for request in requests])
        if "twice" in self.model.parameters and not self.answered:
            self.answered += 1
            for request in requests:
                request.rescheduled = True
            return
        threading.Thread(target=self.answer, args=(requests,)).start()

    def answer(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            y = Tensor.from_numpy("y", request.inputs["x"].numpy() * 2)
            request.respond(InferenceResponse([y], final=False))
            error = InvalidArgumentError("not today") if "fail" in self.model.parameters else None
            self.answered += 1
            request.respond(InferenceResponse(error=error))

    def close(self) -> None:
        self.model.closed += 1


class RecorderPlugin:
    def __init__(self) -> None:
        self.models: list[Recorder] = []

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="recorder", factory=self.backend)]

    def backend(self) -> Backend:
        plugin = self

        class RecorderBackend(Backend):
            def load(self, context: ModelContext) -> BackendModel:
                plugin.models.append(Recorder(context.parameters))
                return plugin.models[-1]

        return RecorderBackend()


@pytest.fixture
def plugin() -> RecorderPlugin:
    return RecorderPlugin()


class Repository:
    def __init__(self, path: Path, plugin: RecorderPlugin) -> None:
        self.path = path
        self.plugin = plugin

    def add(self, config: str, **parameters: str) -> None:
        (self.path / "m" / "1").mkdir(parents=True)
        pairs = "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
        )
        (self.path / "m" / "config.pbtxt").write_text(f'backend: "recorder"\n{TENSORS}\n{config}\n{pairs}')

    def engine(self, **options: Any) -> Any:
        return running_engine(self.path, registry=PluginRegistry.of(recorder=self.plugin), **options)


@pytest.fixture
def repository(tmp_path: Path, plugin: RecorderPlugin) -> Repository:
    return Repository(tmp_path, plugin)


async def test_every_instance_executes_every_sample_on_its_own_thread(
    repository: Repository, plugin: RecorderPlugin
) -> None:
    repository.add(
        "max_batch_size: 4 instance_group { count: 2 kind: KIND_CPU }"
        + sample(more="batch_size: 2 count: 3")
        + sample("random_data: true", name="t")
    )
    async with repository.engine() as engine:
        [model] = plugin.models
        by_thread: dict[int, list[np.ndarray]] = {thread: [] for thread in model.created}
        for thread, [inputs] in model.executions:
            by_thread[thread].append(inputs["x"])
        assert len(by_thread) == 2
        for arrays in by_thread.values():
            assert [array.shape for array in arrays] == [(2, 3)] * 3 + [(1, 3)]
            assert not np.any(arrays[:3])
            assert np.all((arrays[3] >= 0) & (arrays[3] < 1))
            assert np.any(arrays[3])
        [statistics] = engine.statistics("m")
        assert await _double(engine, [[1, 2]]) == [[2, 4]]
        # As in Triton, samples count.
        assert {size: batch.compute_infer.count for size, batch in statistics.batches.items()} == {1: 3, 2: 6}
        assert (statistics.inference_count, statistics.execution_count, statistics.success.count) == (15, 9, 15)
        assert statistics.compute_infer.ns > 0


@pytest.mark.parametrize("more", ["batch_size: 0", "batch_size: 0 count: 2"])
async def test_a_sample_of_batch_size_0_is_skipped(repository: Repository, plugin: RecorderPlugin, more: str) -> None:
    repository.add("max_batch_size: 4" + sample(more=more))
    async with repository.engine():
        assert plugin.models[0].executions == []


@pytest.mark.parametrize(("max_batch_size", "batch_size"), [(0, 2), (4, 5)])
async def test_more_than_one_execution_can_take_fails_the_load(
    repository: Repository, max_batch_size: int, batch_size: int
) -> None:
    repository.add(f"max_batch_size: {max_batch_size}" + sample(more=f"batch_size: {batch_size}"))
    async with repository.engine(allow_failures=True) as engine:
        [entry] = await engine.repository_index()
        assert f"batch size {batch_size} for 'm', max allowed is {max_batch_size}" in entry.reason


async def test_a_sample_that_fails_fails_the_load(repository: Repository, plugin: RecorderPlugin) -> None:
    repository.add("instance_group { count: 1 kind: KIND_CPU }" + sample(name="large").replace("[ 3 ]", "[ 5 ]"))
    async with repository.engine(allow_failures=True) as engine:
        assert not engine.model_ready("m")
        [entry] = await engine.repository_index()
        assert entry.reason.startswith("Invalid argument: failed to run warmup sample 'large': ")
        assert "too many elements" in entry.reason
        assert plugin.models[0].closed == 1


async def test_a_failing_reload_leaves_the_model_that_serves(repository: Repository) -> None:
    repository.add("")
    async with repository.engine(model_control_mode="explicit", load_models=["*"]) as engine:
        config = {
            "backend": "recorder",
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
            "model_warmup": [
                {
                    "name": "large",
                    "batch_size": 1,
                    "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [5], "zero_data": True}},
                }
            ],
        }
        with pytest.raises(InvalidArgumentError, match=r"load failed for model 'm': .* warmup sample 'large'"):
            await engine.load("m", config=json.dumps(config))
        assert await _double(engine, [1, 2]) == [2, 4]


async def test_requests_that_are_answered_late_are_awaited(repository: Repository, plugin: RecorderPlugin) -> None:
    repository.add(
        "max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU }"
        "model_transaction_policy { decoupled: true }" + sample(more="batch_size: 3 count: 2"),
        contract="requests",
    )
    async with repository.engine() as engine:
        executions = plugin.models[0].executions
        assert [[inputs["x"].shape for inputs in requests] for _, requests in executions] == [[(1, 3)] * 3] * 2
        assert engine.model_ready("m")


async def test_late_errors_fail_the_load_too(repository: Repository) -> None:
    repository.add(
        "max_batch_size: 4 model_transaction_policy { decoupled: true }" + sample(more="batch_size: 2"),
        contract="requests",
        fail="yes",
    )
    async with repository.engine(allow_failures=True) as engine:
        [entry] = await engine.repository_index()
        assert entry.reason == "Invalid argument: failed to run warmup sample 's': not today; not today; "


async def test_a_model_that_wants_a_request_again_gets_it(repository: Repository, plugin: RecorderPlugin) -> None:
    repository.add(
        "max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU } model_transaction_policy { decoupled: true }"
        + sample(more="batch_size: 2"),
        contract="requests",
        twice="yes",
    )
    async with repository.engine():
        assert [len(requests) for _, requests in plugin.models[0].executions] == [2, 1, 1]


async def test_a_data_file_gives_the_values(repository: Repository, plugin: RecorderPlugin) -> None:
    repository.add(
        "max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU }"
        + sample('input_data_file: "values"', more="batch_size: 2")
    )
    (repository.path / "m" / "warmup").mkdir()
    # Longer than needed: the rest is not used.
    (repository.path / "m" / "warmup" / "values").write_bytes(np.arange(5, dtype="<f4").tobytes())
    async with repository.engine():
        [(_, [inputs])] = plugin.models[0].executions
        assert inputs["x"].tolist() == [[0, 1, 2], [0, 1, 2]]


async def test_a_data_file_that_is_too_short_fails_the_load(repository: Repository) -> None:
    repository.add("" + sample('input_data_file: "values"'))
    (repository.path / "m" / "warmup").mkdir()
    (repository.path / "m" / "warmup" / "values").write_bytes(bytes(8))
    async with repository.engine(allow_failures=True) as engine:
        [entry] = await engine.repository_index()
        assert entry.reason == (
            "Invalid argument: warmup sample 's': warmup setting expects 12 bytes, but the data provided from values"
            " only has 8 bytes"
        )


def test_a_file_of_too_few_strings_is_named(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "texts").write_bytes(bytes(8))
    with pytest.raises(InvalidArgumentError, match=r"warmup sample 's': expected 3 string elements .* 'x', got 2"):
        _read(sample('input_data_file: "texts"').replace("TYPE_FP32", "TYPE_STRING"), tmp_path)


def _read(config: str, folder: Path = Path()) -> dict[str, Tensor]:
    message = text_format.Parse(config, ModelConfig(name="m"), descriptor_pool=POOL)
    [read] = read_samples(message, 1, folder)
    [request] = read.batch().requests
    return request.inputs


def test_inputs_that_a_scheduler_would_add_have_a_batch_dimension_too() -> None:
    inputs = _read("max_batch_size: 4" + TENSORS + sample(input="START"))
    assert inputs["START"].shape == (1, 3)


def test_shape_tensors_have_none(tmp_path: Path) -> None:
    tensors = TENSORS.replace("dims: [ -1 ] }", "dims: [ 3 ] is_shape_tensor: true }", 1)
    assert _read("max_batch_size: 4" + tensors + sample())["x"].shape == (3,)


@pytest.mark.parametrize("kind", ["zero_data: true", "random_data: true"])
@pytest.mark.parametrize("datatype", datatypes.ALL)
def test_every_datatype_has_data(datatype: datatypes.DataType, kind: str) -> None:
    tensor = _read(sample(kind).replace("TYPE_FP32", datatype.config_name).replace("[ 3 ]", "[ 2, 3 ]"))["x"]
    array = tensor.numpy()
    assert (array.shape, array.dtype) == ((2, 3), datatype.numpy)
    if datatype is datatypes.BYTES:
        assert array.tolist() == [[b""] * 3] * 2
    elif "zero" in kind:
        assert not array.any()
    elif array.dtype.kind == "f":
        assert ((array >= 0) & (array <= 1)).all()


@given(st.lists(st.binary(max_size=5), min_size=3, max_size=3))
def test_files_of_strings_are_in_wire_format(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "warmup").mkdir()
    wire = Tensor.from_numpy("x", object_array(texts, (3,))).wire()
    (folder / "warmup" / "texts").write_bytes(wire)
    inputs = _read(sample('input_data_file: "texts"').replace("TYPE_FP32", "TYPE_STRING"), folder)
    assert inputs["x"].numpy().tolist() == texts


async def _double(engine: Engine, values: Any) -> Any:
    request = InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array(values, np.float32))})
    response = await asyncio.wait_for(engine.infer(request), 30)
    if response.error:
        raise response.error
    return response.outputs[0].numpy().tolist()
