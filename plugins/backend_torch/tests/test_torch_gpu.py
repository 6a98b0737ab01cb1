"""A GPU instance: the CPU's answers, its own stream, tensors that never see the host, no wait for the whole device."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_networks import CONFIG, GRAPHS, NEEDS_CUDA, ON_DEVICE, Instance, on_a_thread, run, save
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.dlpack import CUDA
from trivet.errors import InternalError
from trivet.tensor import Tensor
from trivet.testing import running_instance
from trivet_backend_torch.backend import TorchBackend

pytestmark = NEEDS_CUDA


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
        assert answer.__dlpack_device__() == (CUDA, 0)
        assert given.on_device, "the input was not read to the host"
        assert torch.from_dlpack(answer).is_cuda
        # What another thread reads is complete, on whatever stream it reads.
        return Tensor.from_dlpack("OUTPUT__0", answer, datatypes.FP32, (4, 32))

    answer = on_a_thread(serve).numpy()
    np.testing.assert_allclose(answer, network(x).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_an_output_for_memory_on_a_gpu_stays_there_unasked(context: Any, instance: Instance) -> None:
    def serve() -> list[bool]:
        made = instance(context({"model.pt": save(torch.nn.Linear(64, 32))}, CONFIG.format("FP32")), kind="GPU")
        x = Tensor.from_numpy("INPUT__0", np.ones((1, 64), np.float32))
        stayed = []
        for placed in (["OUTPUT__0"], []):
            made.placed = placed
            stayed.append(run(made, x).__dlpack_device__()[0] == CUDA)
        return stayed

    assert on_a_thread(serve) == [True, False]


def test_an_output_of_another_type_than_was_promised_does_not_stay_there(context: Any, instance: Instance) -> None:
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :32].half()

    def serve() -> None:
        made = instance(context({"model.pt": save(Halves())}, CONFIG.format("FP32") + ON_DEVICE), kind="GPU")
        with pytest.raises(InternalError, match="output 'OUTPUT__0' has datatype FP16, expected FP32"):
            run(made, Tensor.from_numpy("INPUT__0", np.ones((1, 64), np.float32)))

    on_a_thread(serve)


def test_no_run_waits_for_the_whole_device(context: Any, instance: Instance) -> None:
    def serve() -> bool:
        network = torch.nn.Linear(64, 32)
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32")), kind="GPU")
        x = Tensor.from_numpy("INPUT__0", np.ones((8, 64), np.float32))
        other, ended = torch.cuda.Stream(), torch.cuda.Event()
        for cycles in (1, 1 << 31):  # the first loads the kernel, which would wait for the device
            for _ in range(3):
                run(made, x)
            torch.cuda.synchronize()
            with torch.cuda.stream(other):
                torch.cuda._sleep(cycles)  # in the end more than a second
                ended.record()
        for _ in range(5):
            run(made, x)
        return ended.query()

    assert not on_a_thread(serve), "five runs took as long as what others do on the device"


def test_instances_compute_side_by_side_on_streams_of_their_own(context: Any, instance: Instance) -> None:
    made_context = context({"model.pt": save(torch.nn.Linear(64, 32))}, CONFIG.format("FP32"))

    def stream() -> Any:
        made = instance(made_context, kind="GPU")
        return made, torch.cuda.current_stream().cuda_stream

    (_, first), (_, second) = on_a_thread(stream), on_a_thread(stream)
    assert first != second


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


def test_a_batch_of_requests_that_are_on_the_gpu_stays_there(context: Any, instance: Instance) -> None:
    from trivet.options import Settings
    from trivet_memory_cuda.options import OPTIONS as POOLS
    from trivet_memory_cuda.provider import CudaMemory

    network = torch.nn.Linear(64, 32)
    x = torch.randn(4, 64)
    provider = CudaMemory(Settings.of(POOLS))

    def serve() -> Any:
        given = replace(context({"model.pt": save(network)}, CONFIG.format("FP32")), gpu_memory=provider.gpu)
        made = instance(given, kind="GPU")
        assert made.batch_gpu_memory is provider.gpu
        made.placed = {"OUTPUT__0"}
        with torch.cuda.stream(torch.cuda.Stream()):
            # Still being computed when it is put together with the other.
            slow = torch.ones((4096, 4096), device="cuda")
            for _ in range(20):
                slow = slow @ slow / 4096
            first = x[:1].cuda() * slow[0, 0]
        parts = [
            Tensor.from_dlpack("INPUT__0", part, datatypes.FP32, tuple(part.shape)) for part in (first, x[1:].cuda())
        ]
        batch = Tensor.concatenated(parts, (4, 64), None, provider.gpu)
        assert batch.on_device
        answer = run(made, batch)
        rows = Tensor.from_dlpack("OUTPUT__0", answer, datatypes.FP32, (4, 32)).rows_on_device([1, 3])
        assert rows is not None
        assert [part.on_device for part in (*rows, *parts)] == [True] * 4
        return np.concatenate([part.numpy() for part in rows])

    np.testing.assert_allclose(on_a_thread(serve), network(x).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_unloading_gives_the_memory_back(context: Any, backend: TorchBackend) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(64, 1 << 20), torch.nn.Linear(1 << 20, 32)).eval()
    weights = sum(each.nbytes for each in network.parameters())  # 388 MiB
    described = context({"model.pt": save(network)}, CONFIG.format("FP32") + GRAPHS)

    def serve() -> int:
        with running_instance(backend, described, kind="GPU") as made:
            assert isinstance(made, ArrayInstance)
            run(made, Tensor.from_numpy("INPUT__0", np.ones((4, 64), np.float32)))
            held = torch.cuda.memory_reserved()
        del made
        gc.collect()
        backend.trim()
        return held

    kept = []
    for _ in range(3):
        held = on_a_thread(serve)
        kept.append(torch.cuda.memory_reserved())
        assert held - kept[-1] >= weights
    # What libraries have set up for a stream stays, for the next instance on it; the graphs' 128 MiB do not.
    assert kept[2] - kept[0] < 64 << 20


def exported(device: str) -> Callable[[Path], None]:
    network = torch.nn.Linear(64, 32).to(device).eval()
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    shapes = {"input": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(network, (torch.zeros(2, 64, device=device),), dynamic_shapes=shapes)
    return lambda path: torch.export.save(program, path)


@pytest.mark.parametrize(("made_on", "kind"), [("cpu", "GPU"), ("cuda", "GPU"), ("cuda", "CPU")])
def test_a_program_runs_elsewhere_than_it_was_exported(
    made_on: str, kind: str, context: Any, instance: Instance
) -> None:
    def serve() -> Any:
        made = instance(context({"model.pt2": exported(made_on)}), kind=kind)
        x = Tensor.from_numpy("input", np.ones((3, 64), np.float32))
        return made.execute({"input": x}, ["OUTPUT__0"])["OUTPUT__0"]

    assert on_a_thread(serve).tolist() == [[64] * 32] * 3


TABLE = """
import torch

class Table(torch.nn.Module):
    def forward(self, row):
        return torch.ones(4, device=row.device)[row]
"""
LOOK_UP = """
import sys
from pathlib import Path

import numpy as np
from trivet.errors import InternalError
from trivet.tensor import Tensor
from trivet.testing import model_context, running_instance
from trivet_backend_torch.backend import TorchBackend

described = model_context(
    Path(sys.argv[1]),
    'max_batch_size: 8 input { name: "row" data_type: TYPE_INT64 dims: [ 1 ] }'
    'output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }',
    backend="pytorch",
)
(described.version_path / "model.py").write_text(sys.argv[2])
with running_instance(TorchBackend(), described, kind="GPU") as made:
    for row in (0, 7, 0):
        try:
            print(made.execute({"row": Tensor.from_numpy("row", np.array([[row]]))}, ["y"])["y"].tolist(), flush=True)
        except InternalError as error:
            print(error.message.splitlines()[0], flush=True)
"""


def test_a_network_that_ends_the_gpus_context_is_named_the_reason(tmp_path: Path) -> None:
    # In a process of its own, which has no GPU any more from then on.
    ran = subprocess.run(
        [sys.executable, "-c", LOOK_UP, str(tmp_path / "m"), TABLE], check=False, capture_output=True, text=True
    )
    lost = "PyTorch execute failure: CUDA error: device-side assert triggered"
    assert ran.stdout.splitlines() == ["[[1.0]]", lost, lost], ran.stderr
