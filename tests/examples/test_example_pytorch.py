"""The example models of the PyTorch backend: one network in four kinds of file, one answer, by the same client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype
from trivet.testing import RunningServer, running_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSIFIERS = {
    "image_classification_eager": "probabilities",
    "image_classification_torchscript": "probabilities",
    "image_classification_exported": "OUTPUT__0",
}


@pytest.fixture(scope="module")
def server(example_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (example_repository / "image_classification").is_dir():
        pytest.skip("exporting these models needs torch, onnx and tokenizers")
    repository = tmp_path_factory.mktemp("pytorch") / "models"
    options = ["--output", str(repository), "--samples", str(EXAMPLES / ".cache" / "test_samples")]
    command = [sys.executable, str(EXAMPLES / "build_repository.py"), "--only", "light", "--pytorch", *options]
    subprocess.run(command, check=True)
    for folder in repository.iterdir():
        if folder.name not in CLASSIFIERS and folder.name != "voice_activity_torchscript":
            folder.rename(repository.parent / folder.name)
    (repository / "image_classification").symlink_to(example_repository / "image_classification")
    with running_server(repository) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def infer(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Callable[..., Any]]:
    module = getattr(tritonclient, request.param)
    url = server.http_url if request.param == "http" else server.grpc_url
    with module.InferenceServerClient(url) as client:

        def ask(model: str, inputs: dict[str, Any], output: str, **options: Any) -> Any:
            tensors = [
                module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)).set_data_from_numpy(array)
                for name, array in inputs.items()
            ]
            wanted = module.InferRequestedOutput(output, class_count=options.pop("class_count", 0))
            return client.infer(model, tensors, outputs=[wanted], **options).as_numpy(output)

        yield ask


def test_one_network_gives_one_answer_in_onnx_and_in_every_kind_of_pytorch_file(
    infer: Any, sample: Callable[[str], Path]
) -> None:
    from PIL import Image

    pixels = np.asarray(Image.open(sample("china.jpg")).convert("RGB").resize((224, 224)), np.float32)
    image = (pixels / 127.5 - 1).transpose(2, 0, 1)[None].repeat(3, axis=0)
    image[1] = 0
    expected = infer("image_classification", {"image": image}, "probabilities")
    for model, output in CLASSIFIERS.items():
        np.testing.assert_allclose(infer(model, {"image": image}, output), expected, atol=1e-5)
    for model in ("image_classification_eager", "image_classification_torchscript"):
        best, same = (
            infer(name, {"image": image[:1]}, "probabilities", class_count=1)[0, 0].decode().split(":")[1:]
            for name in (model, "image_classification")
        )
        assert best == same, "number and name of the class"


def test_each_speaker_has_a_memory_of_its_own(infer: Any, sample: Callable[[str], Path], tmp_path: Path) -> None:
    """As the network by itself hears one recording and then the other, though the server hears both in turns."""
    import wave

    import torch
    from trivet_backend_torch import torchscript

    def windows(name: str) -> Any:
        with wave.open(str(sample(name))) as recording:
            samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
            samples = samples[:: recording.getframerate() // 16000]
        return (samples[: 12 * 512].astype(np.float32) / 32768).reshape(-1, 1, 512)

    speakers = {1: windows("Front_Center.wav"), 2: windows("Rear_Left.wav")}
    heard: dict[int, list[float]] = {1: [], 2: []}
    for step in range(12):
        for speaker, recording in speakers.items():
            answer = infer(
                "voice_activity_torchscript",
                {"x": recording[step], "sr": np.array([[16000]], np.int64)},
                "speech",
                sequence_id=speaker,
                sequence_start=step == 0,
                sequence_end=step == 11,
            )
            heard[speaker].append(float(answer[0, 0]))
    from repository_builder import packages

    jit = packages.Wheels(EXAMPLES / ".cache" / "wheels").read(packages.SILERO_VAD, "silero_vad/data/silero_vad.jit")
    path = tmp_path / "silero_vad.jit"
    path.write_bytes(jit)
    network = torchscript.load(path, torch.device("cpu")).module
    for speaker, recording in speakers.items():
        network.reset_states()
        with torch.inference_mode():
            alone = [float(network(torch.from_numpy(window), 16000)[0, 0]) for window in recording]
        np.testing.assert_allclose(heard[speaker], alone, atol=1e-5)
    assert max(heard[1]) > 0.5, "somebody speaks"
