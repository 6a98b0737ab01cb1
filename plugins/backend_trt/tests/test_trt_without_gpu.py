"""A machine that cannot run plans says so, for a reader; nothing crashes, and other models serve on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import save
from onnx.parser import parse_model
from trivet.backend import ModelContext
from trivet.errors import UnavailableError
from trivet.testing import running_engine
from trivet_backend_trt import driver
from trivet_backend_trt.backend import TensorRTBackend
from trivet_backend_trt.building import BuildOptions, build_plan

Context = Callable[..., ModelContext]


def has_gpu() -> bool:
    try:
        return driver.device_count() > 0
    except UnavailableError:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
PLAN = b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)) + b"the rest"


@without_gpu
def test_the_driver_is_asked_in_a_process_that_lives_on() -> None:
    """The lean runtime would end it."""
    program = """
import sys
from trivet.errors import UnavailableError
from trivet_backend_trt.driver import compute_capability, device_count, require_device
for ask in (device_count, lambda: require_device(0), lambda: compute_capability(0)):
    try:
        ask()
    except UnavailableError as error:
        print(error)
assert not [name for name in sys.modules if name.startswith(("tensorrt", "cuda"))]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("NVIDIA driver" in line for line in lines)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("source", "reason"), [
    ('int cuInit(int f) { return 100; } int cuGetErrorString(int e, const char** t) { *t = "no device"; return 0; }',
     "the NVIDIA driver answers cuInit with error 100: no device"),
    ("int cuInit(int f) { return 0; } int cuDeviceGetCount(int* n) { *n = 0; return 0; }",
     "the NVIDIA driver shows this process no GPU"),
])  # fmt: skip
def test_a_driver_that_shows_no_gpu(source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without one: the library is there, and says so."""
    library = tmp_path / "libcuda.so"
    (tmp_path / "cuda.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"], check=True)
    monkeypatch.setattr(driver, "LIBRARY", str(library))
    with pytest.raises(UnavailableError, match=reason):
        driver.require_device(0)


@without_gpu
@pytest.mark.parametrize("config", [
    "",
    """max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }""",
])  # fmt: skip
def test_a_model_is_told_why_it_cannot_be_served(config: str, context: Context) -> None:
    backend, made = TensorRTBackend(), context(PLAN, config)

    def load() -> None:
        backend.auto_complete(made)
        backend.load(made)

    with pytest.raises(
        UnavailableError, match="model 'm' needs an NVIDIA GPU, as TensorRT runs on nothing else: there"
    ):
        load()


@without_gpu
@pytest.mark.anyio
async def test_it_costs_no_other_model(tmp_path: Path) -> None:
    """A server with plans that cannot run, in each way, beside a model that can."""
    rtx = tmp_path / "add.onnx"
    save(parse_model('<ir_version: 10, opset_import: ["" : 18]> g (float[4] x) => (float[4] y) { y = Add(x, x) }'), rtx)
    repository = tmp_path / "models"
    for name, content in {
        "missing": None, "corrupt": b"no plan", "tensorrt": PLAN, "rtx": build_rtx(rtx)
    }.items():  # fmt: skip
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder.parent / "config.pbtxt").write_text('platform: "tensorrt_plan"')
        if content is not None:
            (folder / "model.plan").write_bytes(content)
    good = repository / "good" / "1"
    good.mkdir(parents=True)
    (good.parent / "config.pbtxt").write_text(
        """backend: "python" input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } instance_group { kind: KIND_CPU }"""
    )
    (good / "model.py").write_text("class TritonPythonModel:\n    def execute(self, requests):\n        return []\n")
    async with running_engine(repository, allow_failures=True) as engine:
        assert engine.model_ready("good")
        reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
        assert "unable to find" in reasons["missing"]
        assert "'model.plan' is no TensorRT plan" in reasons["corrupt"]
        assert "model 'tensorrt' needs an NVIDIA GPU" in reasons["tensorrt"]
        assert "model 'rtx' needs an NVIDIA GPU" in reasons["rtx"]


def build_rtx(model: Path) -> bytes:
    pytest.importorskip("tensorrt_rtx", reason="plans are built with trivet-backend-trt[rtx]")
    return build_plan(model, BuildOptions(library="tensorrt_rtx"))
