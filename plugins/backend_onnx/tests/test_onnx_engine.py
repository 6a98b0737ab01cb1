"""ONNX models in a repository, served by the engine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import trivet_backend_onnx.plugin
from onnx import TensorProto, helper
from trivet import datatypes
from trivet.engine import Engine
from trivet.errors import NotFoundError
from trivet.host_policy import HostPolicy, ranges
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor, object_array
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

FLOAT = TensorProto.FLOAT


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"use_uvloop": True})


class Repository:
    """A model repository in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, model: onnx.ModelProto | bytes, config: str = "", version: int = 1) -> None:
        folder = self.path / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        if config:
            (folder.parent / "config.pbtxt").write_text(config)

    def engine(self, **options: Any) -> AbstractAsyncContextManager[Engine]:
        registry = PluginRegistry.of(onnx=trivet_backend_onnx.plugin)
        return running_engine(self.path, registry=registry, **options)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
async def engine(repository: Repository, add_sub: onnx.ModelProto) -> AsyncIterator[Engine]:
    repository.add("arithmetic", add_sub)
    async with repository.engine() as running:
        yield running


async def infer(
    engine: Engine, model: str, /, outputs: list[str] | None = None, **inputs: np.ndarray[Any, Any] | Tensor
) -> InferenceResponse:
    request = InferenceRequest(
        model,
        {
            name: value if isinstance(value, Tensor) else Tensor.from_numpy(name, value)
            for name, value in inputs.items()
        },
        outputs=None if outputs is None else [RequestedOutput(name) for name in outputs],
    )
    return await engine.infer(request)


def results(response: InferenceResponse) -> dict[str, Any]:
    assert response.error is None, response.error
    return {tensor.name: tensor.numpy().tolist() for tensor in response.outputs}


async def test_a_model_needs_no_configuration(engine: Engine) -> None:
    config = engine.model("arithmetic").config
    assert config.platform == "onnxruntime_onnx"
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 4
    assert config.default_model_filename == "model.onnx"
    assert [(group.count, group.Kind.Name(group.kind)) for group in config.instance_group] == [(2, "KIND_CPU")]
    a = np.array([[1, 2, 3, 4]], dtype=np.float32)
    assert results(await infer(engine, "arithmetic", a=a, b=a)) == {
        "sum": [[2, 4, 6, 8]],
        "difference": [[0, 0, 0, 0]],
    }
    assert results(await infer(engine, "arithmetic", ["difference"], a=a, b=a)) == {"difference": [[0, 0, 0, 0]]}


async def test_many_requests_at_once_get_their_own_answers(engine: Engine) -> None:
    async def one(number: int) -> None:
        a = np.full((1 + number % 4, 4), number, dtype=np.float32)
        response = await infer(engine, "arithmetic", a=a, b=a)
        np.testing.assert_array_equal(response.outputs[0].numpy(), a * 2)

    await asyncio.gather(*map(one, range(64)))
    statistics = engine.model("arithmetic").statistics
    assert statistics.success.count == 64
    assert statistics.fail.count == 0


async def test_scalars_text_and_bfloat16(repository: Repository, build_model: Any) -> None:
    model = build_model(
        [
            helper.make_node("Identity", ["text"], ["text_out"]),
            helper.make_node("Mul", ["x", "rate"], ["y"]),
            helper.make_node("Cast", ["y"], ["rounded"], to=TensorProto.BFLOAT16),
        ],
        {"text": (TensorProto.STRING, (None,)), "x": (FLOAT, (None, 2)), "rate": (FLOAT, ())},
        {"text_out": (TensorProto.STRING, (None,)), "y": (FLOAT, (None, 2))},
    )
    narrow = build_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.BFLOAT16, (None, 2))},
        {"y": (TensorProto.BFLOAT16, (None, 2))},
    )
    repository.add("mixed", model)
    repository.add("narrow", narrow)
    async with repository.engine() as engine:
        response = await infer(
            engine,
            "mixed",
            text=Tensor.from_wire("text", datatypes.BYTES, (2,), b"\x02\0\0\0hi\x02\0\0\0\xc3\xa9"),
            x=np.ones((3, 2), dtype=np.float32),
            rate=np.array([2], dtype=np.float32),
        )
        assert results(response) == {"text_out": [b"hi", "é".encode()], "y": [[2, 2]] * 3}
        assert bytes(response.outputs[0].wire()) == b"\x02\0\0\0hi\x02\0\0\0\xc3\xa9"
        bad = await infer(
            engine,
            "mixed",
            text=Tensor.from_numpy("text", object_array([b"\xff"], (1,))),
            x=np.ones((3, 2), dtype=np.float32),
            rate=np.array([2], dtype=np.float32),
        )
        assert "is not valid UTF-8" in str(bad.error)
        response = await infer(engine, "narrow", x=Tensor.from_wire("x", datatypes.BF16, (1, 2), b"\x80\x3f\x00\x40"))
        assert response.outputs[0].datatype is datatypes.BF16
        assert bytes(response.outputs[0].wire()) == b"\x80\x3f\x00\x40"


async def test_reshape(repository: Repository, identity: Any) -> None:
    repository.add("flat", identity(TensorProto.INT64, (None,)))
    repository.add(
        "square",
        identity(FLOAT, (None, 2, 2)),
        """
        max_batch_size: 2
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
        output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }""",
    )
    async with repository.engine() as engine:
        assert results(await infer(engine, "flat", x=np.array([[7], [8]]))) == {"y": [[7], [8]]}
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        assert results(await infer(engine, "square", x=x)) == {"y": x.tolist()}


async def test_a_failing_request_hurts_no_other(repository: Repository, build_model: Any) -> None:
    model = build_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (FLOAT, (None,)), "shape": (TensorProto.INT64, (2,))},
        {"y": (FLOAT, (None, None))},
    )
    repository.add("reshape", model)
    async with repository.engine() as engine:
        x = np.arange(6, dtype=np.float32)
        bad, good = await asyncio.gather(
            infer(engine, "reshape", x=x, shape=np.array([5, 5])), infer(engine, "reshape", x=x, shape=np.array([3, 2]))
        )
        assert "onnx runtime error" in str(bad.error)
        assert results(good) == {"y": [[0, 1], [2, 3], [4, 5]]}


async def test_broken_models_say_why_and_good_ones_are_served(repository: Repository, add_sub: onnx.ModelProto) -> None:
    repository.add("good", add_sub)
    repository.add("damaged", b"no model")
    repository.add("misconfigured", add_sub, "max_batch_size: 4 " + 'input { name: "a" data_type: TYPE_FP32 dims: 4 }')
    warp = 'gpu_execution_accelerator { name: "warp" }'
    repository.add("accelerated", add_sub, f"optimization {{ execution_accelerators {{ {warp} }} }}")
    async with repository.engine(allow_failures=True) as engine:
        index = {entry.name: entry for entry in await engine.repository_index()}
        assert index["good"].state == "READY"
        for name, reason in {
            "damaged": "the file is damaged",
            "misconfigured": "configuration expects 1 inputs, model provides 2",
            "accelerated": "unknown Execution Accelerator 'warp' is requested",
        }.items():
            assert index[name].state == "UNAVAILABLE"
            assert reason in index[name].reason
            with pytest.raises(NotFoundError):
                engine.model(name)
        ones = np.ones((1, 4), dtype=np.float32)
        assert results(await infer(engine, "good", ["sum"], a=ones, b=ones)) == {"sum": [[2, 2, 2, 2]]}


def _plus(build_model: Any, number: float) -> onnx.ModelProto:
    """``y = x + number``"""
    offset = helper.make_tensor("offset", FLOAT, (1,), [number])
    model: onnx.ModelProto = build_model(
        [helper.make_node("Add", ["x", "offset"], ["y"])],
        {"x": (FLOAT, (None, 1))},
        {"y": (FLOAT, (None, 1))},
        initializers=[offset],
    )
    return model


async def test_loading_a_file_from_the_request(repository: Repository, build_model: Any) -> None:
    repository.add("plus", _plus(build_model, 1))
    one = np.ones((1, 1), dtype=np.float32)
    async with repository.engine(model_control_mode="explicit", load_models=["plus"]) as engine:
        assert results(await infer(engine, "plus", x=one)) == {"y": [[2]]}
        files = {"1/model.onnx": _plus(build_model, 10).SerializeToString()}
        await engine.load("plus", config='{"backend": "onnxruntime"}', files=files)
        assert results(await infer(engine, "plus", x=one)) == {"y": [[11]]}
        await engine.load("plus")
        assert results(await infer(engine, "plus", x=one)) == {"y": [[2]]}


async def test_loading_and_unloading_under_traffic(repository: Repository, build_model: Any) -> None:
    repository.add("comes and goes", _plus(build_model, 2))
    repository.add("stays", _plus(build_model, 1))
    one = np.ones((1, 1), dtype=np.float32)
    async with repository.engine(model_control_mode="explicit", load_models=["stays"]) as engine:
        stop = asyncio.Event()

        async def traffic() -> int:
            answered = 0
            while not stop.is_set():
                assert results(await infer(engine, "stays", x=one)) == {"y": [[2]]}
                answered += 1
            return answered

        task = asyncio.create_task(traffic())
        for _ in range(10):
            await engine.load("comes and goes")
            assert results(await infer(engine, "comes and goes", x=one)) == {"y": [[3]]}
            await engine.unload("comes and goes")
        stop.set()
        assert await task > 0


def threads() -> dict[str, str]:
    """The cores that each thread of this process may run on."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found[task.name] = next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="binds threads as Linux does")
@pytest.mark.parametrize("parameters", ["", 'parameters { key: "intra_op_thread_count" value { string_value: "3" } }'])
async def test_the_threads_of_a_session_stay_on_the_cores_of_the_host_policy(
    repository: Repository, add_sub: onnx.ModelProto, parameters: str
) -> None:
    core = min(os.sched_getaffinity(0))  # left alone, ONNX Runtime would bind its first thread to another one
    groups = 'instance_group { kind: KIND_CPU count: 1 host_policy: "first" }'
    repository.add("bound", add_sub, f"{groups} {parameters}")
    before = threads()
    policy = HostPolicy("first", frozenset({core}))
    async with repository.engine(host_policies={"first": policy}, rate_limit="off") as engine:
        started = {task: cores for task, cores in threads().items() if task not in before}
        a = np.array([[1, 2, 3, 4]], dtype=np.float32)
        assert results(await infer(engine, "bound", ["sum"], a=a, b=a)) == {"sum": [[2, 4, 6, 8]]}
    bound = [cores for cores in started.values() if cores == str(core)]
    everywhere = ranges(os.sched_getaffinity(0))
    assert len(bound) == (3 if parameters else 1)  # of which one is the instance's own
    assert set(started.values()) <= {str(core), everywhere}


async def test_instances_share_a_session_only_where_they_are_bound_alike(
    repository: Repository, add_sub: onnx.ModelProto, caplog: pytest.LogCaptureFixture
) -> None:
    groups = ", ".join(f'{{ kind: KIND_CPU host_policy: "{name}" }}' for name in ("first", "first", "free", "other"))
    repository.add("bound", add_sub, f"instance_group [{groups}]")
    policy = HostPolicy("first", frozenset({min(os.sched_getaffinity(0))}))
    with caplog.at_level("INFO", logger="trivet.model.bound"):
        async with repository.engine(host_policies={"first": policy}):
            pass
    assert sum("runs on CPUExecutionProvider" in message for message in caplog.messages) == 2
