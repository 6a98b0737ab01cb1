"""A real network as a plan: built here, and on a GPU held against what ONNX Runtime answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from gpu_plans import builder_here
from trivet.cli import cli
from trivet.placement import gpu_count
from trivet.testing import running_engine
from trivet.testing.conformance.requests import infer, request
from trivet_backend_trt.plan import read_head


@pytest.fixture
def classifier(example_repository: Path) -> Path:
    return example_repository / "image_classification" / "1" / "model.onnx"


def build(model: Path, plan: Path, *options: str) -> None:
    shapes = [f"--{size}=image:{rows}x3x224x224" for size, rows in (("min", 1), ("opt", 4), ("max", 8))]
    done = CliRunner().invoke(cli, ["trt", "build", str(model), "-o", str(plan), *shapes, *options])
    assert done.exit_code == 0, done.output


def test_efficientnet_becomes_a_plan_without_a_gpu(classifier: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="plans are built without a GPU by trivet-backend-trt[rtx]")
    plan = tmp_path / "model.plan"
    build(classifier, plan, "--library", "tensorrt_rtx")
    assert read_head(plan).kind == "tensorrt_rtx"
    # Its weights are in it.
    assert plan.stat().st_size > 0.9 * classifier.stat().st_size


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_count(), reason="needs an NVIDIA GPU; this machine has none")
@pytest.mark.anyio
async def test_its_answers_are_those_of_onnx_runtime(classifier: Path, tmp_path: Path) -> None:
    here = builder_here()
    options = ["--library", here["library"]]
    for capability in here.get("compute_capabilities", ()):
        options += ["--compute-capability", capability]
    build(classifier, tmp_path / "classifier" / "1" / "model.plan", *options)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, 224, 224)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(classifier), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": images})
    async with running_engine(tmp_path) as engine:
        answer = await infer(engine, request("classifier", {"image": images}))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=2e-3)
