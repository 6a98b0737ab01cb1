"""A GPU instance: the CPU's answers, its own stream, tensors that never see the host, no wait for the whole device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.tensor import Tensor

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

Instance = Callable[..., ArrayInstance]

CONFIG = """max_batch_size: 32
input {{ name: "INPUT__0" data_type: TYPE_{0} dims: [ 64 ] }}
output {{ name: "OUTPUT__0" data_type: TYPE_{0} dims: [ 32 ] }}
"""
ON_DEVICE = 'parameters { key: "OUTPUTS_ON_DEVICE" value { string_value: "true" } }'


def save(network: torch.nn.Module) -> Callable[[Path], None]:
    return lambda path: torch.jit.trace(network.eval(), torch.zeros(2, 64)).save(str(path))


def run(made: ArrayInstance, x: Tensor) -> Any:
    return made.execute({"INPUT__0": x}, ["OUTPUT__0"])["OUTPUT__0"]


def on_a_thread(function: Callable[[], Any]) -> Any:
    """As instances are run: the current stream is a thread's."""
    result: list[Any] = []

    def target() -> None:
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised below
            result.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def test_answers_are_the_cpus(context: Any, instance: Instance) -> None:
    network = torch.nn.Linear(64, 32)
    x = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)

    def serve() -> Any:
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32")), kind="GPU")
        assert torch.cuda.current_stream() != torch.cuda.default_stream()
        return [run(made, Tensor.from_numpy("INPUT__0", x)) for _ in range(3)]

    expected = network(torch.from_numpy(x)).detach().numpy()
    for answer in on_a_thread(serve):
        assert isinstance(answer, np.ndarray)
        np.testing.assert_allclose(answer, expected, rtol=1e-2, atol=1e-3)


def test_bfloat16_and_bytes_of_the_wire(context: Any, instance: Instance) -> None:
    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :32] * 2

    ones = np.full((2, 64), 0x3F80, np.uint16).tobytes()

    def serve() -> Any:
        made = instance(context({"model.pt": save(Head())}, CONFIG.format("BF16")), kind="GPU")
        return run(made, Tensor.from_wire("INPUT__0", datatypes.BF16, (2, 64), ones))

    assert on_a_thread(serve).tolist() == [[0x4000] * 32] * 2


def test_tensors_stay_on_the_device(context: Any, instance: Instance) -> None:
    network = torch.nn.Linear(64, 32)
    x = torch.randn(4, 64)

    def serve() -> Any:
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32") + ON_DEVICE), kind="GPU")
        given = Tensor.from_dlpack("INPUT__0", x.cuda(), datatypes.FP32, (4, 64))
        answer = run(made, given)
        assert answer.device.type == "cuda"
        assert given.on_device, "the input was not read to the host"
        # What another thread reads is complete, on whatever stream it reads.
        return Tensor.from_dlpack("OUTPUT__0", answer, datatypes.FP32, (4, 32))

    answer = on_a_thread(serve).numpy()
    np.testing.assert_allclose(answer, network(x).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_no_run_waits_for_the_whole_device(context: Any, instance: Instance) -> None:
    from torch.profiler import ProfilerActivity, profile

    def serve() -> Any:
        network = torch.nn.Linear(64, 32)
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32")), kind="GPU")
        x = Tensor.from_numpy("INPUT__0", np.ones((8, 64), np.float32))
        for _ in range(3):
            run(made, x)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for _ in range(5):
                run(made, x)
            # The profiler itself waits for the device when it ends.
        return [event.key for event in profiler.key_averages()], [
            event.name for event in profiler.events() if event.name == "cudaDeviceSynchronize"
        ]

    keys, waits = on_a_thread(serve)
    assert "cudaStreamSynchronize" in keys
    assert len(waits) <= 1, "only the profiler's own"


def test_instances_compute_side_by_side_on_streams_of_their_own(context: Any, instance: Instance) -> None:
    made_context = context({"model.pt": save(torch.nn.Linear(64, 32))}, CONFIG.format("FP32"))

    def stream() -> Any:
        made = instance(made_context, kind="GPU")
        return made, torch.cuda.current_stream().cuda_stream

    (_, first), (_, second) = on_a_thread(stream), on_a_thread(stream)
    assert first != second
