"""``trivet trt build``, with the real builder of TensorRT for RTX, which needs no GPU."""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from cuda_standin import Driver
from onnx.parser import parse_model
from rich.console import Console
from trivet.cli import cli
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.placement import gpu_count
from trivet_backend_trt import driver, library
from trivet_backend_trt.building import BuildOptions, build_plan, write_file
from trivet_backend_trt.driver import compute_capability
from trivet_backend_trt.plan import read_head
from trivet_backend_trt.progress import BuildProgress
from trivet_backend_trt.shapes import ProfileShapes, parse_shapes, read_profiles

trt = pytest.importorskip("tensorrt_rtx", reason="plans are built with trivet-backend-trt[rtx]")

Build = Callable[..., Result]

ADD = """<ir_version: 10, opset_import: ["" : 18]>
add (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] sum) { sum = Add(a, b) }"""
SHAPES = ("--min", "a:1x4,b:1x4", "--opt", "a:2x4,b:2x4", "--max", "a:8x4,b:8x4")


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Run ``trivet trt build`` over a model; the plan is ``out/model.plan``."""
    path = tmp_path / "add.onnx"
    onnx.save(parse_model(ADD), str(path))

    def run(*options: str, model: Path = path) -> Result:
        arguments = ["trt", "build", str(model), "-o", str(tmp_path / "out" / "model.plan"), *options]
        return CliRunner().invoke(cli, arguments)

    return run


def test_it_writes_a_plan(build: Build, tmp_path: Path) -> None:
    done = build(*SHAPES)
    plan = tmp_path / "out" / "model.plan"
    assert (done.exit_code, done.stdout) == (0, f"wrote {plan} ({plan.stat().st_size:,} bytes)\n"), done.output
    head = read_head(plan)
    assert head.kind == "tensorrt_rtx"
    assert ".".join(map(str, head.version or ())) == trt.__version__
    assert [path.name for path in plan.parent.iterdir()] == ["model.plan"]


@pytest.mark.parametrize("options", [
    ("--compute-capability", "8.6", "--compute-capability", "8.9"), ("--weight-streaming",),
    ("--optimization-level", "1"), ("--workspace", "1G"), ("--strongly-typed",), ("--quiet",),
    ("--library", "tensorrt_rtx"),
    ("--opt", "a:16x4,b:16x4", "--min", "a:1x4,b:1x4", "--max", "a:32x4,b:32x4"),
])  # fmt: skip
def test_options_that_it_takes(options: tuple[str, ...], build: Build, tmp_path: Path) -> None:
    done = build(*SHAPES, *options)
    assert done.exit_code == 0, done.output
    assert read_head(tmp_path / "out" / "model.plan").kind == "tensorrt_rtx"


@pytest.mark.parametrize(("options", "reason"), [
    ((), "the sizes of a, b vary: give them with --min, --opt and --max, such as --opt a:1x4,b:1x4"),
    (("--opt", "a:2x4"), "a profile must name all inputs whose sizes vary, and misses b"),
    (("--opt", "a:2x4,b:2x4,c:1"), "there is no input 'c'; the model's inputs are a, b"),
    (("--opt", "a:2x5,b:2x4"), "input 'a' cannot have the shape [2, 5]: the model has [-1, 4], where -1 is any size"),
    ((*SHAPES, "--min", "a:1x4,b:1x4"), "--opt is given 1 times, expected 2: once for each optimization profile"),
    ((*SHAPES, "--compute-capability", "9.0"), "does not build for compute capability 9.0, only for current, 7.5"),
    ((*SHAPES, "--precision", "fp16"), "has no precision 'fp16': a network has the types of its ONNX model"),
    ((*SHAPES, "--version-compatible"), "--version-compatible is not for TensorRT for RTX"),
    ((*SHAPES, "--hardware-compatible", "ampere-plus"), "--hardware-compatible is not for TensorRT for RTX"),
    ((*SHAPES, "--timing-cache", "cache"), "--timing-cache is not for TensorRT for RTX"),
    ((*SHAPES, "--exclude-lean-runtime"), "--exclude-lean-runtime is for plans that are --version-compatible"),
    ((*SHAPES, "--dla-core", "0"), "--dla-core is not for TensorRT for RTX"),
    ((*SHAPES, "--workspace", "much"), "'much' is no size, expected bytes, such as 1000000, 500M or 4G"),
    ((*SHAPES, "--workspace", "99999999999G"), "'99999999999G' is more than any machine has"),
    ((*SHAPES, "--plugins", "/no/such.so"), "unable to load custom library for TensorRT plugins: /no/such.so"),
])  # fmt: skip
def test_what_it_refuses_and_why(options: tuple[str, ...], reason: str, build: Build, tmp_path: Path) -> None:
    done = build(*options)
    assert done.exit_code != 0
    assert reason in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("source", [
    "int registered_while_it_is_loaded;",
    """#include <stdint.h>
    void setLoggerFinder(void* finder) {}
    void* const* getCreators(int32_t* count) { *count = 0; return 0; }""",
], ids=["registers itself", "offers creators"])  # fmt: skip
def test_a_library_with_plugins_is_loaded(
    source: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins.c").write_text(source)
    library = tmp_path / "plugins.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "plugins.c"], check=True)
    monkeypatch.chdir(tmp_path)
    for path in (str(library), str(library), library.name):
        done = build(*SHAPES, "--plugins", path)
        assert done.exit_code == 0, done.output


def test_files_that_are_no_model(build: Build, tmp_path: Path) -> None:
    assert "there is no file" in build(model=tmp_path / "none.onnx").output
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert "'broken.onnx' cannot be parsed as ONNX: " in build(model=broken).output
    for content in (b"", b"hello"):
        broken.write_bytes(content)
        assert "'broken.onnx' has no outputs; it is damaged, or no ONNX model" in build(model=broken).output
    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"], name="the_node")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), str(broken))
    assert "(node 'the_node', a NoSuchOperator)" in build(model=broken).output


def test_a_model_that_no_gpu_of_the_kind_can_run(build: Build, tmp_path: Path) -> None:
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [64, 64], np.ones(4096, np.float32))
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    product (float[8, 64] x) => (float[8, 64] y) { y = MatMul(x, w) }""")
    model.graph.initializer.append(weights)
    path = tmp_path / "product.onnx"
    onnx.save(model, str(path))
    done = build("--compute-capability", "7.5", model=path)
    assert "'product.onnx' cannot be built: " in done.output
    assert "Turing" in done.output
    assert build("--compute-capability", "8.0", model=path).exit_code == 0


def test_weights_beside_the_model_are_found(build: Build, tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    product (float[8, 64] x) => (float[8, 64] y) { y = MatMul(x, w) }""")
    model.graph.initializer.append(weights)
    path = tmp_path / "external.onnx"
    onnx.save(model, str(path), save_as_external_data=True, size_threshold=0, location="weights.bin")
    assert (tmp_path / "weights.bin").exists()
    assert build(model=path).exit_code == 0


def test_a_builder_that_needs_a_gpu_says_so(build: Build) -> None:
    done = build(*SHAPES, "--compute-capability", "current")
    if not gpu_count():
        assert done.exit_code != 0
        assert "NVIDIA driver" in done.output
    elif compute_capability(0) in library.compute_capabilities(trt):
        assert done.exit_code == 0, done.output


def test_a_gpu_that_it_has_no_plans_for(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an H100."""
    monkeypatch.setattr(Driver, "capabilities", ((9, 0),))
    monkeypatch.setattr(driver, "_driver", Driver)
    done = build(*SHAPES, "--compute-capability", "current")
    assert "the GPU here has compute capability 9.0, for which tensorrt_rtx" in done.output
    assert done.exit_code != 0


def test_values_of_a_shape_tensor_that_are_not_in_order(tmp_path: Path) -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    expand (float[4, 1] x, int64[2] shape) => (float[n, m] y) { y = Expand(x, shape) }""")
    path = tmp_path / "expand.onnx"
    onnx.save(model, str(path))
    wrong = ProfileShapes({"shape": (5, 5)}, {"shape": (3, 3)}, {"shape": (1, 1)})
    with pytest.raises(InvalidArgumentError, match="input 'shape' cannot have these sizes"):
        build_plan(path, BuildOptions(library="tensorrt_rtx", profiles=[wrong]))


def profiles() -> Any:
    return read_profiles(["a:1x4,b:1x4"], ["a:2x4,b:2x4"], ["a:8x4,b:8x4"])


def test_progress_is_told_phase_by_phase(build: Build, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Recorder(BuildProgress):
        def start(self, name: str, parent: str | None, steps: int) -> None:
            told.append(("start", name, parent, steps))
            super().start(name, parent, steps)

        def finish(self, name: str) -> None:
            told.append(("finish", name))
            super().finish(name)

    with Recorder() as progress:
        build_plan(tmp_path / "add.onnx", BuildOptions(profiles=profiles()), progress.monitor)
    assert told[0] == ("start", "Building engine", None, 6)
    assert told[-1] == ("finish", "Building engine")
    assert sorted(name for kind, name, *_ in told if kind == "start") == sorted(
        name for kind, name, *_ in told if kind == "finish"
    )


def test_a_build_ends_when_it_is_cancelled(build: Build, tmp_path: Path) -> None:
    with BuildProgress() as progress:
        progress.cancelled.set()
        with pytest.raises(UnavailableError, match="the build was cancelled"):
            build_plan(tmp_path / "add.onnx", BuildOptions(profiles=profiles()), progress.monitor)


def test_builds_do_not_disturb_each_other(build: Build, tmp_path: Path) -> None:
    """What goes wrong in one is told of that one."""
    results: dict[int, object] = {}

    def run(number: int) -> None:
        try:
            chosen = profiles() if number % 2 else ()
            results[number] = build_plan(tmp_path / "add.onnx", BuildOptions(profiles=chosen))
        except InvalidArgumentError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [isinstance(results[number], bytes) for number in range(4)] == [False, True, False, True]


def test_a_bar_for_each_phase_that_it_is_in() -> None:
    shown = io.StringIO()
    with BuildProgress(Console(file=shown, force_terminal=True, width=100)) as progress:
        progress.start("Building engine", None, 2)
        progress.start("Optimizing graph", "Building engine", 30)
        assert progress.step("Optimizing graph", 14)
    assert "Building engine" in shown.getvalue()
    assert "  Optimizing graph" in shown.getvalue()
    assert "15/30" in shown.getvalue()


def test_a_place_that_cannot_be_written_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    done = build(*SHAPES)
    assert done.exit_code == 1
    assert f"Error: '{tmp_path / 'out'}': File exists" in done.output


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    write_file(path, b"old")
    with pytest.raises(TypeError):
        write_file(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.plan"]


@pytest.mark.parametrize(("text", "shapes"), [
    ("input:1x3x224x224", {"input": (1, 3, 224, 224)}),
    ("a:1x4,b:8", {"a": (1, 4), "b": (8,)}),
    ("scope:0:2", {"scope:0": (2,)}),
    ("'scope:0':2, b:", {"scope:0": (2,), "b": ()}),
])  # fmt: skip
def test_shapes_as_trtexec_writes_them(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize("text", ["", "a", "a:x4", "a:1x", "a:-1x4", "a:1,,b:2", "a:1,a:2", ":4"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_shapes(text)


def test_what_is_left_out_of_a_profile() -> None:
    (only_best,) = read_profiles([], ["x:4"], [])
    assert only_best.minimum == only_best.maximum == {"x": (4,)}
    (both,) = read_profiles(["x:1"], [], ["x:8"])
    assert both.optimum == {"x": (8,)}
    with pytest.raises(InvalidArgumentError, match="shapes 4, 2 and 8, expected min <= opt <= max"):
        read_profiles(["x:4"], ["x:2"], ["x:8"])
    with pytest.raises(InvalidArgumentError, match="must name the same inputs"):
        read_profiles(["x:4"], ["y:2"], [])
