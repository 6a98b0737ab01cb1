"""TensorFlow models in a repository, served by the engine: concurrency, neighbours, sequences, threads, unloading."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tf_models import Tensors, parameter, save_double, save_serving, tf, v1
from trivet.host_policy import HostPolicy
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"use_uvloop": True})


def folder_of(path: Path, model: str, config: str = "") -> Path:
    (path / model / "1").mkdir(parents=True)
    if config:
        (path / model / "config.pbtxt").write_text(config)
    return path / model / "1" / "model.savedmodel"


async def infer(engine: Any, model: str, options: dict[str, Any] | None = None, **inputs: Any) -> InferenceResponse:
    tensors = {name: Tensor.from_numpy(name, np.asarray(value)) for name, value in inputs.items()}
    response: InferenceResponse = await engine.infer(InferenceRequest(model, tensors, **(options or {})))
    return response


ROW = np.float32([[1, 2, 3, 4]])


async def test_requests_side_by_side_get_their_own_answers(tmp_path: Path) -> None:
    """In batches, of two instances, from a repository without a single configuration but for that."""
    save_double(folder_of(tmp_path, "double", "instance_group { count: 2 }"))
    rows = np.random.default_rng(0).normal(size=(64, 1, 4)).astype(np.float32)
    async with running_engine(tmp_path) as running:
        responses = await asyncio.gather(*(infer(running, "double", x=row) for row in rows))
    for response, row in zip(responses, rows, strict=True):
        np.testing.assert_array_equal(response.outputs[0].numpy(), 2 * row)


async def test_models_that_do_not_load_leave_their_neighbours(tmp_path: Path) -> None:
    save_double(folder_of(tmp_path, "good"))
    save_double(folder_of(tmp_path, "unsigned", parameter("TF_SIGNATURE_DEF", "sign")))
    damaged = folder_of(tmp_path, "damaged")
    save_double(damaged)
    (damaged / "saved_model.pb").write_bytes(b"?")
    async with running_engine(tmp_path, allow_failures=True) as running:
        index = {entry.name: entry for entry in await running.repository_index()}
        assert "expected 'sign' signature; the SavedModel has serving_default" in index["unsigned"].reason
        assert "it is damaged or incomplete" in index["damaged"].reason
        assert (await infer(running, "good", x=ROW)).error is None


async def test_ragged_requests_in_one_batch(tmp_path: Path) -> None:
    """Rows of any length go in as one long row, with where each one ends."""

    def build() -> tuple[Tensors, Tensors]:
        x, ends = v1.placeholder(tf.float32, [None]), v1.placeholder(tf.float32, [None])
        sums = tf.gather(tf.cumsum(x), tf.cast(ends, tf.int32) - 1)
        each = sums - tf.concat([[0.0], sums[:-1]], 0)
        return {"x": x, "ends": ends}, {"sum": each[:, None]}

    config = """
        backend: "tensorflow" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
        batch_input { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "x" }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
        dynamic_batching { max_queue_delay_microseconds: 50000 }
    """
    save_serving(folder_of(tmp_path, "sums", config), build)
    async with running_engine(tmp_path) as running:
        responses = await asyncio.gather(
            *(infer(running, "sums", x=np.ones((1, length), np.float32)) for length in (1, 5, 2, 7))
        )
    assert [response.error for response in responses] == [None] * 4
    assert [float(response.outputs[0].numpy()[0, 0]) for response in responses] == [1, 5, 2, 7]


async def test_a_state_that_the_server_keeps_between_requests(tmp_path: Path) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x, total = (v1.placeholder(tf.float32, [None, 1]) for _ in range(2))
        return {"x": x, "total": total}, {"y": x + total, "new_total": x + total}

    config = """
        backend: "tensorflow" max_batch_size: 4
        input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
        sequence_batching {
          state { input_name: "total" output_name: "new_total" data_type: TYPE_FP32 dims: [ 1 ] }
          oldest { max_candidate_sequences: 4 }
        }
    """
    save_serving(folder_of(tmp_path, "total", config), build)

    async def speak(running: Any, speaker: int) -> list[float]:
        answers = []
        for step in range(3):
            options = {"correlation_id": speaker, "sequence_start": step == 0, "sequence_end": step == 2}
            response = await infer(running, "total", options, x=np.float32([[speaker]]))
            assert response.error is None, response.error
            answers.append(float(response.outputs[0].numpy()[0, 0]))
        return answers

    async with running_engine(tmp_path) as running:
        assert await asyncio.gather(speak(running, 1), speak(running, 10)) == [[1, 2, 3], [10, 20, 30]]


@pytest.mark.parametrize(("share", "sessions"), [("1", 3), ("2", 2), ("3", 1)])
async def test_instances_share_sessions_as_far_as_they_may(
    share: str, sessions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch_sessions(monkeypatch)
    config = "instance_group { count: 3 }" + parameter("MAX_SESSION_SHARE_COUNT", share)
    save_double(folder_of(tmp_path, "double", config))
    async with running_engine(tmp_path) as running:
        assert len(made) == 2 * sessions
        assert (await infer(running, "double", x=ROW)).error is None


def watch_sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Session and graph of each network that is made from now on."""
    from trivet_backend_tf import loading

    made: list[weakref.ref[Any]] = []

    class Watched(loading.Network):
        def __init__(self, graph: Any, session: Any, *more: Any, **options: Any) -> None:
            made.extend((weakref.ref(session), weakref.ref(graph)))
            super().__init__(graph, session, *more, **options)

    monkeypatch.setattr(loading, "Network", Watched)
    return made


async def test_unloading_frees_session_and_graph_without_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch_sessions(monkeypatch)
    save_double(folder_of(tmp_path, "double"))
    monkeypatch.setattr("trivet.garbage.gc.collect", lambda: 0)
    gc.disable()
    try:
        async with running_engine(tmp_path, model_control_mode="explicit", load_models=["*"]) as running:
            assert (await infer(running, "double", x=ROW)).error is None
            await running.unload("double")
        assert len(made) == 2
        assert [reference() for reference in made] == [None, None]
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
async def test_an_instance_that_is_bound_to_a_core_computes_there(tmp_path: Path) -> None:
    """Its threads across operators are its own: those of the process run anywhere."""
    core = min(os.sched_getaffinity(0))
    save_double(folder_of(tmp_path, "double", 'instance_group { kind: KIND_CPU host_policy: "one" }'))
    save_double(folder_of(tmp_path, "free"))

    def bound() -> int:
        return sum(
            os.sched_getaffinity(thread.id) == {core}
            for thread in psutil.Process().threads()
            if Path(f"/proc/self/task/{thread.id}/comm").read_text().startswith("tf_")
        )

    policies = {"one": HostPolicy("one", frozenset((core,)))}
    async with running_engine(
        tmp_path, host_policies=policies, model_control_mode="explicit", load_models=["free"]
    ) as running:
        before = bound()
        await running.load("double")
        assert (await infer(running, "double", x=ROW)).error is None
        assert len(os.sched_getaffinity(0)) == 1 or bound() > before


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_loading_and_unloading_leaves_memory_flat(tmp_path: Path) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None, 1024])
        weights = v1.get_variable("weights", initializer=tf.ones([1024, 1024]))
        return {"x": x}, {"y": x @ weights}

    save_serving(folder_of(tmp_path, "wide"), build)
    process = psutil.Process()
    async with running_engine(tmp_path, model_control_mode="explicit", load_models=["*"]) as running:
        settled = 0
        for cycle in range(200):
            await running.unload("wide")
            await running.load("wide")
            assert (await infer(running, "wide", x=np.ones((1, 1024), np.float32))).error is None
            if cycle == 50:
                gc.collect()
                settled = process.memory_info().rss
        gc.collect()
        grown = process.memory_info().rss - settled
        assert grown < 150 * 64 << 10, "4 MB of weights a cycle would be 600 MB"
