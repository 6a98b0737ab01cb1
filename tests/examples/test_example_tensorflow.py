"""The example models of the TensorFlow backend, and the same networks of other backends: one client, one answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trivet.testing import RunningServer, running_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = ("image_classification_savedmodel", "pitch_detection", "pitch_detection_onnx", "programming_language")
RATE, SAMPLES = 22050, 43844
OUTPUTS = {"contour": 0, "note": 0, "onset": 0}
LOWEST_NOTE = 21
"""MIDI number of what the model's first column stands for."""


@pytest.fixture(scope="module")
def server(choose_models: Callable[..., Path]) -> Iterator[RunningServer]:
    """These models, and the ONNX model of the one that is exported here."""
    with running_server(choose_models([*MODELS, "image_classification"])) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: RunningServer, new_client: Callable[..., Any]) -> Iterator[Any]:
    made = new_client(request.param, server)
    yield made
    made.client.close()


def melody(*notes: int) -> np.ndarray:
    """FP32 [1, 43844, 1]: tones of a plucked string, one after the other, by their MIDI numbers."""
    length = SAMPLES // len(notes)
    seconds = np.arange(length) / RATE
    tones = [np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * seconds) * np.exp(-4 * seconds) for note in notes]
    return (0.5 * np.concatenate(tones)).astype(np.float32)[None, :, None]


def heard(activation: np.ndarray, count: int) -> list[int]:
    """The loudest note in each part of ``activation`` [172, 88]."""
    return [int(LOWEST_NOTE + part.max(axis=0).argmax()) for part in np.array_split(activation, count)]


def test_tensorflow_hears_the_notes_that_are_played_and_the_onnx_model_the_same(client: Any) -> None:
    notes = (69, 71, 72, 74)
    music = np.concatenate([melody(*notes), melody(*reversed(notes))])
    answers = [
        client.infer_all(name, {"input_2": music}, OUTPUTS) for name in ("pitch_detection", "pitch_detection_onnx")
    ]
    for name in OUTPUTS:
        np.testing.assert_allclose(answers[0][name], answers[1][name], rtol=0, atol=1e-6)
    assert [heard(activation, 4) for activation in answers[0]["note"]] == [list(notes), list(reversed(notes))]


def test_one_classifier_gives_one_answer_as_savedmodel_and_as_onnx_model(
    client: Any, sample: Callable[[str], Path]
) -> None:
    from processing import imagenet_pixels

    image = np.concatenate([imagenet_pixels(sample("china.jpg")), np.zeros((1, 3, 224, 224), np.float32)])
    names = ("image_classification", "image_classification_savedmodel")
    expected, answer = (client.infer(name, {"image": image}, "probabilities") for name in names)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    best = [client.classify(name, {"image": image}, "probabilities", 1)[0] for name in names]
    assert best[0] == best[1]


PROGRAMS = {
    "Python": Path(__file__).read_text(encoding="utf-8"),
    "Dockerfile": "FROM debian:stable\nRUN apt-get update && apt-get install -y curl\nCOPY . /app\nCMD ['/app/run']\n",
    "HTML": "<!DOCTYPE html>\n<html><head><title>Trivet</title></head><body><p>hot</p></body></html>\n",
}


def test_text_goes_in_and_languages_come_out(client: Any) -> None:
    texts = np.array([[text.encode()] for text in PROGRAMS.values()], np.object_)
    answer = client.infer_all("programming_language", {"inputs": texts}, {"scores": 0, "classes": 0})
    assert [row[0] for row in client.classify("programming_language", {"inputs": texts}, "scores", 1)] == [*PROGRAMS]
    np.testing.assert_allclose(answer["scores"].sum(axis=1), 1, atol=1e-5)
    best = answer["scores"].argmax(axis=1)
    assert [classes[index] for classes, index in zip(answer["classes"], best, strict=True)] == [
        b"py",
        b"dockerfile",
        b"html",
    ]


def test_a_text_that_is_no_text_is_a_guess_too(client: Any) -> None:
    """Whatever bytes there are, they reach the model."""
    text = np.array([[bytes(range(256))]], np.object_)
    assert client.infer("programming_language", {"inputs": text}, "scores").shape == (1, 54)


def test_the_client_that_guesses_languages(server: RunningServer) -> None:
    script = EXAMPLES / "clients" / "guess_language.py"
    command = [sys.executable, str(script), str(script), "--url", server.http_url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{script}: Python (")
