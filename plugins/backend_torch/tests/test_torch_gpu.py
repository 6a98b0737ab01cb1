"""A GPU instance: the CPU's answers, its own stream, tensors that never see the host, no wait for the whole device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError
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


GRAPHS = "optimization { cuda { graphs: true } }"


MASKED = """
import torch

class Masked(torch.nn.Module):
    def forward(self, x):
        return x[x > 0].sum().repeat(x.shape[0], 32)
"""


def test_a_graph_is_replayed_for_the_shapes_that_were_recorded(context: Any, instance: Instance) -> None:
    from torch.profiler import ProfilerActivity, profile

    network = torch.nn.Linear(64, 32)
    x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)

    def serve() -> Any:
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32") + GRAPHS), kind="GPU")
        launched, answers = {}, {}
        for rows in (1, 2, 5, 32):
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                answers[rows] = run(made, Tensor.from_numpy("INPUT__0", x[:rows]))
            launched[rows] = any(event.key == "cudaGraphLaunch" for event in profiler.key_averages())
        again = run(made, Tensor.from_numpy("INPUT__0", x[1:3]))
        return launched, answers, again

    launched, answers, again = on_a_thread(serve)
    assert launched == {1: True, 2: True, 5: False, 32: True}
    expected = network(torch.from_numpy(x)).detach().numpy()
    for rows, answer in answers.items():
        np.testing.assert_allclose(answer, expected[:rows], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(again, expected[1:3], rtol=1e-2, atol=1e-3)


def test_outputs_on_the_device_are_not_written_over_by_the_next_replay(context: Any, instance: Instance) -> None:
    network = torch.nn.Linear(64, 32)
    x = torch.randn(2, 64)

    def serve() -> Any:
        config = CONFIG.format("FP32") + ON_DEVICE + GRAPHS
        made = instance(context({"model.pt": save(network)}, config), kind="GPU")
        first = run(made, Tensor.from_numpy("INPUT__0", x[:1].numpy()))
        run(made, Tensor.from_numpy("INPUT__0", x[1:].numpy()))
        return first.cpu().numpy()

    np.testing.assert_allclose(on_a_thread(serve), network(x[:1]).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_a_network_that_waits_for_the_gpu_cannot_be_recorded(context: Any, instance: Instance) -> None:
    def serve() -> Any:
        # How many elements are kept is known on the host only when they are computed.
        files = {"model.py": MASKED}
        with pytest.raises(
            InvalidArgumentError, match="failed to load model 'm': its run cannot be recorded as a CUDA"
        ):
            instance(context(files, CONFIG.format("FP32") + GRAPHS), kind="GPU")
        # The GPU is as it was: others load, record and run.
        made = instance(
            context({"model.pt": save(torch.nn.Linear(64, 32))}, CONFIG.format("FP32") + GRAPHS, name="n"), kind="GPU"
        )
        return run(made, Tensor.from_numpy("INPUT__0", np.ones((4, 64), np.float32))).shape

    assert on_a_thread(serve) == (4, 32)


def test_without_pinned_memory_the_answers_are_the_same(context: Any, instance: Instance) -> None:
    network = torch.nn.Linear(64, 32)
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    pageable = "optimization { input_pinned_memory { enable: false } output_pinned_memory { enable: false } }"

    def serve() -> Any:
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32") + pageable), kind="GPU")
        return run(made, Tensor.from_numpy("INPUT__0", x))

    np.testing.assert_allclose(on_a_thread(serve), network(torch.from_numpy(x)).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_tensors_pass_through_the_servers_pinned_memory(context: Any, instance: Instance) -> None:
    from trivet.options import Settings
    from trivet_memory_cuda.options import OPTIONS as POOLS
    from trivet_memory_cuda.provider import CudaMemory

    network = torch.nn.Linear(64, 32)
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    provider = CudaMemory(Settings.of(POOLS))

    def serve() -> Any:
        given = replace(context({"model.pt": save(network)}, CONFIG.format("FP32")), pinned_memory=provider.pinned)
        made = instance(given, kind="GPU")
        assert made.batch_memory is provider.pinned
        answers = [run(made, Tensor.from_numpy("INPUT__0", x)) for _ in range(3)]
        assert all(map(provider.pinned.holds, answers))
        return answers

    answers = on_a_thread(serve)
    for answer in answers:
        np.testing.assert_allclose(answer, network(torch.from_numpy(x)).detach().numpy(), rtol=1e-2, atol=1e-3)
    del answers, answer
    assert provider.pools()[0].used_bytes == 0
