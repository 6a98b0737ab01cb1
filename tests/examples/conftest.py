"""The example repository, built as a user builds it, served, and reached by tritonclient over both protocols."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CACHE = EXAMPLES / ".cache"
SAMPLES = CACHE / "test_samples"
CAN_EXPORT = all(importlib.util.find_spec(name) for name in ("torch", "onnx", "tokenizers"))

sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "clients")]


class Server(Protocol):
    """What the ``trivet_server`` fixture hands out."""

    http_url: str
    grpc_url: str


@pytest.fixture(scope="session")
def example_repository() -> Path:
    """The path of the example repository: all of it where the export has what it needs, else the light part."""
    repository = CACHE / "test_repository"
    options = ["--output", str(repository), "--samples", str(SAMPLES), "--only", "all" if CAN_EXPORT else "light"]
    subprocess.run([sys.executable, str(EXAMPLES / "build_repository.py"), *options], check=True)
    return repository


@pytest.fixture(scope="session")
def choose_models(
    example_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Iterable[str]], Path]:
    """A repository of a few of the examples by name, those of the PyTorch and the TensorFlow backend among them.

    A test whose models cannot be built here is skipped.
    """
    frameworks = CACHE / "test_frameworks"
    if CAN_EXPORT:
        options = [
            "--output",
            str(frameworks),
            "--samples",
            str(SAMPLES),
            "--only",
            "light",
            "--pytorch",
            "--tensorflow",
        ]
        subprocess.run([sys.executable, str(EXAMPLES / "build_repository.py"), *options], check=True)

    def choose(names: Iterable[str]) -> Path:
        repository = tmp_path_factory.mktemp("models")
        for name in names:
            built = next((path for path in (example_repository / name, frameworks / name) if path.is_dir()), None)
            if built is None:
                pytest.skip(f"building {name} needs what is not installed: see examples/README.md")
            (repository / name).symlink_to(built)
        return repository

    return choose


@pytest.fixture(scope="session")
def example_server(example_repository: Path, trivet_server: Callable[[Path], Server]) -> Server:
    return trivet_server(example_repository)


@pytest.fixture(scope="session")
def sample(example_repository: Path) -> Callable[[str], Path]:
    """Finds a sample by name; the test is skipped where it could not be had on this machine."""

    def find(name: str) -> Path:
        if not (SAMPLES / name).exists():
            pytest.skip(f"{name} is not here: see what examples/build_repository.py says")
        return SAMPLES / name

    return find


@pytest.fixture
def needs_export() -> None:
    if not CAN_EXPORT:
        pytest.skip("exporting these models needs torch, onnx and tokenizers")


class OutsidersPackage:
    """A package under ``examples/`` that somebody else might have written, installed from its wheel beside the rest."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source = EXAMPLES / name
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(self.source)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = map(str, folder.glob("*.whl"))
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(folder / "installed"),
            wheel,
        ]
        subprocess.run(install, check=True)
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "installed")}
        """The variables with which Python finds it."""

    def check_its_tests(self, folder: Path) -> None:
        """Run the package's own tests in ``folder``, without what this repository's pytest is told."""
        command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-c", os.devnull, "--rootdir", str(self.source), str(self.source / "tests")],
            cwd=folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert " passed" in done.stdout


class Client:
    """``tritonclient.http`` or ``tritonclient.grpc``, numpy arrays in and out."""

    def __init__(self, protocol: str, server: Server) -> None:
        self.protocol = protocol
        self.module = importlib.import_module(f"tritonclient.{protocol}")
        self.client = self.module.InferenceServerClient(server.http_url if protocol == "http" else server.grpc_url)

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], output: str, class_count: int = 0) -> NDArray[Any]:
        return self.infer_all(model, inputs, {output: class_count})[output]

    def infer_all(
        self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, int]
    ) -> dict[str, NDArray[Any]]:
        """``outputs`` maps each wanted name to its number of classes, 0 for the tensor itself."""
        tensors = [
            self.module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)).set_data_from_numpy(array)
            for name, array in inputs.items()
        ]
        requested = [self.module.InferRequestedOutput(name, class_count=count) for name, count in outputs.items()]
        result = self.client.infer(model, tensors, outputs=requested)
        return {name: result.as_numpy(name) for name in outputs}

    def classify(self, model: str, inputs: Mapping[str, NDArray[Any]], output: str, top: int) -> list[list[str]]:
        """The names of the ``top`` best classes, for each element of the batch."""
        entries = self.infer(model, inputs, output, class_count=top)
        return [[entry.decode().split(":", 2)[2] for entry in row] for row in entries]

    def config(self, model: str) -> dict[str, Any]:
        """The model's configuration as JSON, with the field names of ``model_config.proto``."""
        if self.protocol == "http":
            config: dict[str, Any] = self.client.get_model_config(model)
            return config
        return dict(self.client.get_model_config(model, as_json=True)["config"])

    def executions(self, model: str) -> int:
        """How many executions the model had, of one request or more."""
        options = {} if self.protocol == "http" else {"as_json": True}
        statistics = self.client.get_inference_statistics(model, **options)
        return int(statistics["model_stats"][0]["execution_count"])


@pytest.fixture(scope="session")
def new_client() -> type[Client]:
    """For tests with a server of their own."""
    return Client


# One for the whole session: tritonclient.http may only be freed on the thread that made it, and a client that a failed
# request's traceback holds on to would be freed by whichever thread the garbage collector runs on.
@pytest.fixture(scope="session", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, example_server: Server) -> Iterator[Client]:
    client = Client(request.param, example_server)
    yield client
    client.client.close()


@pytest.fixture(scope="session")
def draw(example_repository: Path) -> Callable[..., bytes]:
    """Draws lines of text into a PNG, with the font that the samples are drawn with."""
    from repository_builder import packages, samples

    font = packages.Wheels(CACHE / "wheels").read(packages.MATPLOTLIB, "*/fonts/ttf/DejaVuSans.ttf")
    return lambda *lines, **options: samples.draw_text(lines, font, **options)
