"""PyTorch models in a repository, served by the engine: concurrency, neighbours, sequences, unloading."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trivet_backend_torch.plugin
import trivet_scheduler_dynamic.plugin
import trivet_scheduler_sequence.plugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

CONFIG = """
backend: "pytorch"
max_batch_size: 16
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 2 ] }
dynamic_batching { max_queue_delay_microseconds: 1000 }
"""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"use_uvloop": True})


def engine(path: Path, **options: Any) -> Any:
    registry = PluginRegistry.of(
        torch=trivet_backend_torch.plugin,
        dynamic=trivet_scheduler_dynamic.plugin,
        sequence=trivet_scheduler_sequence.plugin,
    )
    return running_engine(path, registry=registry, **options)


def write(path: Path, name: str, module: torch.nn.Module, config: str) -> None:
    (path / name / "1").mkdir(parents=True)
    torch.jit.script(module.eval()).save(str(path / name / "1" / "model.pt"))
    (path / name / "config.pbtxt").write_text(config)


async def infer(engine: Any, model: str, x: Any, **options: Any) -> InferenceResponse:
    name = "INPUT__0"
    response: InferenceResponse = await engine.infer(
        InferenceRequest(model, {name: Tensor.from_numpy(name, np.asarray(x, np.float32))}, **options)
    )
    return response


async def test_requests_side_by_side_get_their_own_answers(tmp_path: Path) -> None:
    linear = torch.nn.Linear(4, 2)
    write(tmp_path, "linear", linear, CONFIG + "instance_group { count: 2 kind: KIND_CPU }")
    x = np.random.default_rng(0).normal(size=(64, 1, 4)).astype(np.float32)
    async with engine(tmp_path) as running:
        responses = await asyncio.gather(*(infer(running, "linear", row) for row in x))
    expected = linear(torch.from_numpy(x)).detach().numpy()
    for response, row in zip(responses, expected, strict=True):
        np.testing.assert_allclose(response.outputs[0].numpy(), row, rtol=1e-5, atol=1e-6)


async def test_a_model_that_does_not_load_leaves_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "good", torch.nn.Linear(4, 2), CONFIG)
    write(tmp_path, "wrong", torch.nn.Linear(4, 2), CONFIG.replace("OUTPUT__0", "OUTPUT__3"))
    write(tmp_path, "damaged", torch.nn.Linear(4, 2), CONFIG)
    (tmp_path / "damaged" / "1" / "model.pt").write_bytes(b"?")
    async with engine(tmp_path, allow_failures=True) as running:
        index = {entry.name: entry for entry in await running.repository_index()}
        assert "output index which doesn't exist" in index["wrong"].reason
        assert "it is damaged or incomplete" in index["damaged"].reason
        response = await infer(running, "good", np.ones((1, 4)))
        assert response.error is None


class Total(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total += x
        return self.total

    @torch.jit.export
    def reset(self) -> None:
        self.total.zero_()


async def test_sequences_side_by_side_each_have_an_instance_with_its_state(tmp_path: Path) -> None:
    # TorchScript reads annotations, which in this file are text.
    Total.forward.__annotations__.update({"x": torch.Tensor, "return": torch.Tensor})
    Total.reset.__annotations__.update({"return": None})
    config = """
        backend: "pytorch"
        max_batch_size: 1
        input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1 ] }
        instance_group { count: 2 kind: KIND_CPU }
        sequence_batching { control_input {
            name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }
        } }
        parameters { key: "RESET_METHOD" value { string_value: "reset" } }
    """
    write(tmp_path, "total", Total(), config)
    async with engine(tmp_path) as running:

        async def speak(correlation_id: int) -> list[float]:
            totals = []
            for step in range(3):
                response = await infer(
                    running,
                    "total",
                    [[correlation_id]],
                    correlation_id=correlation_id,
                    sequence_start=step == 0,
                    sequence_end=step == 2,
                )
                assert response.error is None, response.error
                totals.append(float(response.outputs[0].numpy()[0, 0]))
            return totals

        for _ in range(2):
            assert await asyncio.gather(speak(1), speak(10), speak(100)) == [
                [1, 2, 3],
                [10, 20, 30],
                [100, 200, 300],
            ]


async def test_unloading_frees_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trivet_backend_torch import torchscript

    freed: list[weakref.ref[Any]] = []
    load = torchscript.load

    def watched(path: Path, device: Any) -> Any:
        network = load(path, device)
        freed.append(weakref.ref(network.module))
        return network

    monkeypatch.setattr(torchscript, "load", watched)
    write(tmp_path, "linear", torch.nn.Linear(4, 2), CONFIG)
    async with engine(tmp_path, model_control_mode="explicit", load_models=["*"]) as running:
        assert (await infer(running, "linear", np.ones((1, 4)))).error is None
        await running.unload("linear")
    gc.collect()
    assert freed
    assert all(reference() is None for reference in freed)
