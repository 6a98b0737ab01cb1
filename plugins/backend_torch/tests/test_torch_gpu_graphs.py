"""CUDA graphs: replayed for the shapes that were recorded, of networks that can be."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from gpu_networks import CONFIG, GRAPHS, NEEDS_CUDA, ON_DEVICE, Instance, on_a_thread, run, save
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor

pytestmark = NEEDS_CUDA

MASKED = """
import torch

class Masked(torch.nn.Module):
    def forward(self, x):
        return x[x > 0].sum().repeat(x.shape[0], 32)
"""


def test_a_graph_is_replayed_for_the_shapes_that_were_recorded(
    context: Any, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = torch.nn.Linear(64, 32)
    x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    replays: list[Any] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: Any) -> None:
        replays.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)

    def serve() -> Any:
        made = instance(context({"model.pt": save(network)}, CONFIG.format("FP32") + GRAPHS), kind="GPU")
        launched, answers = {}, {}
        for rows in (1, 2, 5, 32):
            replays.clear()
            answers[rows] = run(made, Tensor.from_numpy("INPUT__0", x[:rows]))
            launched[rows] = len(replays)
        again = run(made, Tensor.from_numpy("INPUT__0", x[1:3]))
        return launched, answers, again

    launched, answers, again = on_a_thread(serve)
    assert launched == {1: 1, 2: 1, 5: 0, 32: 1}
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
        return np.from_dlpack(first, device="cpu", copy=True)

    np.testing.assert_allclose(on_a_thread(serve), network(x[:1]).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_a_network_that_waits_for_the_gpu_cannot_be_recorded(context: Any, instance: Instance) -> None:
    def serve() -> Any:
        # How many elements are kept is known on the host only when they are computed.
        files = {"model.py": MASKED}
        with pytest.raises(
            InvalidArgumentError, match="failed to load model 'm': its run cannot be recorded as a CUDA"
        ):
            instance(context(files, CONFIG.format("FP32") + GRAPHS), kind="GPU")
        # The GPU is as it was: others load, record and run, draw lots, and give memory back.
        made = instance(
            context({"model.pt": save(torch.nn.Linear(64, 32))}, CONFIG.format("FP32") + GRAPHS, name="n"), kind="GPU"
        )
        assert torch.rand(3, device="cuda").shape == (3,)
        before = torch.cuda.memory_reserved()
        torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() <= before
        return run(made, Tensor.from_numpy("INPUT__0", np.ones((4, 64), np.float32))).shape

    assert on_a_thread(serve) == (4, 32)


@pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("g++") is None, reason="making a package needs CUDA's toolkit and g++"
)
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's compiler, of its own code
def test_a_package_of_aotinductor_is_recorded(context: Any, instance: Instance) -> None:
    import torch._inductor as inductor

    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :32] * 2

    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(Doubled().cuda(), (torch.zeros(2, 64, device="cuda"),), dynamic_shapes=shapes)
    files = {"model.pt2": lambda path: inductor.aoti_compile_and_package(program, package_path=str(path))}

    def serve() -> Any:
        made = instance(context(files, CONFIG.format("FP32") + GRAPHS), kind="GPU")
        return [run(made, Tensor.from_numpy("INPUT__0", np.ones((rows, 64), np.float32))) for rows in (2, 5)]

    for answer in on_a_thread(serve):
        assert (answer == 2).all()
