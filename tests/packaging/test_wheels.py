"""You install what you use: kernel, KServe v2 and ONNX Runtime, from wheels in an empty environment, serve a model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "kernel", *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# What stands at the top of a wheel, where that is not one package of the distribution's name.
MODULES: dict[str, set[str]] = {
    "trivet": set(),
    "trivet_kernel": {"trivet"},
    "trivet_backend_python": {"trivet_backend_python", "triton_python_backend_utils.py"},
}
INSTALLED = ("trivet_kernel", "trivet_transport_http", "trivet_protocol_kserve_v2", "trivet_backend_onnx")

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every package, and of the bundle."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in (ROOT, *PACKAGES):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, package)
    return folder


def test_every_package_builds_a_wheel_of_its_own(wheels: Path) -> None:
    built = {wheel.name.split("-")[0] for wheel in wheels.glob("*.whl")}
    assert built == {"trivet", "trivet_kernel", *(f"trivet_{package.name}" for package in PACKAGES[1:])}


def test_a_wheel_holds_its_modules_their_types_and_the_licence(wheels: Path) -> None:
    for wheel in wheels.glob("*.whl"):
        distribution = wheel.name.split("-")[0]
        modules = MODULES.get(distribution, {distribution})
        information = f"{distribution}-{VERSION}.dist-info"
        names = zipfile.ZipFile(wheel).namelist()
        assert {name.partition("/")[0] for name in names} == {information, *modules}
        assert f"{information}/licenses/LICENSE" in names
        assert {f"{module}/py.typed" for module in modules if not module.endswith(".py")} <= set(names)


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the four packages and what they depend on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    files = [next(wheels.glob(f"{name}-*.whl")) for name in INSTALLED]
    extras = {"trivet_kernel": "[uvloop]", "trivet_backend_onnx": "[cpu]"}
    wanted = [f"{file}{extras.get(name, '')}" for name, file in zip(INSTALLED, files, strict=True)]
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    run(*pip, "-c", ROOT / "constraints.txt", *wanted)
    return folder / "bin"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that adds one, with no configuration at all."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "xy")
    one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    add = onnx.helper.make_node("Add", ["x", "one"], ["y"])
    graph = onnx.helper.make_graph([add], "increment", [x], [y], [one])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "increment" / "1"
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
    return tmp_path


@pytest.fixture
def server(environment: Path, repository: Path) -> Iterator[str]:
    """The base URL of ``trivet serve`` in that environment."""
    settings = ["--http-port", "0", "--grpc-port", "0", "--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"]
    process = subprocess.Popen(
        [environment / "trivet", "serve", repository, *settings],
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    assert process.stderr is not None
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"listening for http on (http://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(log))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_they_serve_a_model_without_any_other_plugin_or_framework(environment: Path, server: str) -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
    call = urllib.request.Request(f"{server}/v2/models/increment/infer", json.dumps(request).encode())
    with urllib.request.urlopen(call, timeout=60) as response:
        assert json.load(response)["outputs"][0]["data"] == [2.0, 3.0]
    installed = {package["name"] for package in json.loads(run(environment / "pip", "list", "--format", "json"))}
    assert {name for name in installed if name.startswith("trivet")} == {name.replace("_", "-") for name in INSTALLED}
    assert not installed & {"torch", "tensorflow", "tensorrt", "onnx"}


def test_a_model_of_a_backend_that_is_not_there_names_the_command_that_installs_it(
    environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "scripted" / "1").mkdir(parents=True)
    (tmp_path / "scripted" / "config.pbtxt").write_text('backend: "python"')
    done = subprocess.run([environment / "trivet", "check", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install trivet-backend-python" in re.sub(r"\s+", " ", done.stdout + done.stderr)
