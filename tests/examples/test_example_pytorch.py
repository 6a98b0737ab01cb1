"""The example models of the PyTorch backend: one network in several kinds of file, one answer; voices; and faces."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from trivet.testing import RunningServer, running_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# What the ONNX models of the same networks are compared with, and what is for this backend alone.
ONNX = ("image_classification", "sentence_embedding")
SENTENCES = ("sentence_embedding_eager", "sentence_embedding_exported")
FACES = ("face_detector", "face_landmarks", "face_proposal", "face_refinement")
CLASSIFIERS = {
    "image_classification_eager": "probabilities",
    "image_classification_torchscript": "probabilities",
    "image_classification_exported": "OUTPUT__0",
}


@pytest.fixture(scope="module")
def server(choose_models: Callable[..., Path]) -> Iterator[RunningServer]:
    with running_server(
        choose_models([*CLASSIFIERS, *SENTENCES, *FACES, "voice_activity_torchscript", *ONNX])
    ) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def infer(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Callable[..., Any]]:
    module = getattr(tritonclient, request.param)
    url = server.http_url if request.param == "http" else server.grpc_url
    with module.InferenceServerClient(url) as client:

        def ask(model: str, inputs: dict[str, Any], *outputs: str, class_count: int = 0, **options: Any) -> Any:
            tensors = [
                module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)).set_data_from_numpy(array)
                for name, array in inputs.items()
            ]
            wanted = [module.InferRequestedOutput(output, class_count=class_count) for output in outputs]
            answer = client.infer(model, tensors, outputs=wanted, **options)
            arrays = [answer.as_numpy(output) for output in outputs]
            return arrays if len(arrays) > 1 else arrays[0]

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


def test_sentences_of_any_length_embed_as_in_onnx(infer: Any) -> None:
    random = np.random.default_rng(0)
    for batch, length in ((1, 1), (3, 12), (1, 128)):
        mask = np.ones((batch, length), np.int64)
        mask[0, length // 2 + 1 :] = 0
        tokens = {
            "input_ids": random.integers(1000, 30000, (batch, length)) * mask,
            "attention_mask": mask,
            "token_type_ids": np.zeros((batch, length), np.int64),
        }
        expected = infer("sentence_embedding", tokens, "sentence_embedding")
        for model, output in zip(SENTENCES, ("sentence_embedding", "OUTPUT__0"), strict=True):
            np.testing.assert_allclose(infer(model, tokens, output), expected, atol=1e-5)


def picture(image: Any) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"image": np.array([file.getvalue()], np.object_)}


def test_every_face_of_a_picture_is_found(infer: Any, sample: Callable[[str], Path]) -> None:
    """The same portrait twice, once at half its size, on one picture."""
    from PIL import Image

    portrait = Image.open(sample("grace_hopper.jpg")).convert("RGB")
    canvas = Image.new("RGB", (portrait.width * 2, portrait.height), "white")
    canvas.paste(portrait, (0, 0))
    canvas.paste(portrait.resize((portrait.width // 2, portrait.height // 2)), (portrait.width, 0))
    boxes, probabilities, landmarks = infer("face_detector", picture(canvas), "boxes", "probabilities", "landmarks")
    assert boxes.shape == (2, 4)
    assert (probabilities > 0.99).all()
    order = np.argsort(boxes[:, 0])
    boxes, landmarks = boxes[order], landmarks[order]
    # Both are where the picture has them: of one size the double of the other.
    np.testing.assert_allclose((boxes[1] - [portrait.width, 0] * 2) * 2, boxes[0], atol=30)
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert ((landmarks > boxes[:, None, :2]) & (landmarks < boxes[:, None, 2:])).all(), "a face's points are in its box"


def test_a_picture_without_a_face_has_none(infer: Any, sample: Callable[[str], Path]) -> None:
    from PIL import Image

    given = picture(Image.open(sample("flower.jpg")))
    boxes, landmarks = infer("face_detector", given, "boxes", "landmarks")
    assert (boxes.shape, landmarks.shape) == ((0, 4), (0, 5, 2))
    with pytest.raises(InferenceServerException, match="image cannot be decoded"):
        infer("face_detector", {"image": np.array([b"no picture"], np.object_)}, "boxes")


def test_the_client_prints_where_a_face_is(server: RunningServer, sample: Callable[[str], Path]) -> None:
    command = [sys.executable, str(EXAMPLES / "clients" / "find_faces.py"), str(sample("grace_hopper.jpg"))]
    result = subprocess.run([*command, "--url", server.http_url], check=True, capture_output=True, text=True)
    (line,) = result.stdout.splitlines()
    probability, left, top, right, bottom, *eyes = map(float, re.findall(r"[0-9.]+", line))
    assert probability > 0.99
    # Where somebody who looks at the photograph sees the face, and the eyes.
    np.testing.assert_allclose([left, top, right, bottom], [167, 107, 348, 340], atol=25)
    np.testing.assert_allclose(eyes, [221, 190, 307, 187], atol=10)


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
