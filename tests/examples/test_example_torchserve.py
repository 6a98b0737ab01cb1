"""A classifier as TorchServe's users package it: torch-model-archiver's file, and neither handler nor configuration."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

MODEL = "image_classification_torchscript"
BATCH = "batchSize: 3\nmaxBatchDelay: 60000\n"  # so that nothing but three requests together are a batch


@pytest.fixture(scope="module")
def network(choose_models: Callable[..., Path]) -> Path:
    """The folder of the example, which has the network and the names of its classes."""
    return choose_models([MODEL]) / MODEL


@pytest.fixture(scope="module")
def server(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("archive")
    labels = dict(enumerate((network / "labels.txt").read_text().splitlines()))
    (folder / "index_to_name.json").write_text(json.dumps(labels))
    (folder / "model-config.yaml").write_text(BATCH)
    repository = folder / "models"
    for name, options in {"single": [], "batched": ["--config-file", str(folder / "model-config.yaml")]}.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        archiver = Path(sys.executable).with_name("torch-model-archiver")
        packed = subprocess.run(
            [
                *(str(archiver), "--model-name", "model", "--version", "1.0", "--handler", "image_classifier"),
                *("--serialized-file", str(network / "1" / "model.pt")),
                *("--extra-files", str(folder / "index_to_name.json"), "--export-path", str(version), *options),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert packed.returncode == 0, packed.stderr
    with running_server(repository) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def classify(request: pytest.FixtureRequest, server: RunningServer) -> Callable[..., list[Any]]:
    """Sends files of images all at the same time, each from a client of its own; an answer or an error for each."""
    module = getattr(tritonclient, request.param)
    url = server.http_url if request.param == "http" else server.grpc_url

    def send(model: str, file: bytes) -> Any:
        with module.InferenceServerClient(url) as client:
            tensor = module.InferInput("data", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[file]], np.object_))
            try:
                return json.loads(client.infer(model, [tensor]).as_numpy("prediction").item())
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

    def send_all(model: str, *files: bytes) -> list[Any]:
        with ThreadPoolExecutor(len(files)) as threads:
            return list(threads.map(partial(send, model), files))

    return send_all


def best(scores: dict[str, float]) -> str:
    return next(iter(scores))


def test_the_answer_is_that_of_the_network_for_the_middle_of_the_image(
    classify: Callable[..., list[Any]], network: Path, sample: Callable[[str], Path]
) -> None:
    file = sample("china.jpg")
    image = Image.open(file)
    assert image.size == (640, 427)
    # The shorter side is 256 pixels long, and from the middle of that a square of 224 is cut.
    pixels = np.asarray(image.resize((383, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240)), np.float32) / 255
    normalized = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    loaded = torch.jit.load(str(network / "1" / "model.pt"))
    with torch.inference_mode():
        expected = loaded(torch.from_numpy(normalized.transpose(2, 0, 1)[None].copy())).softmax(dim=1)[0]

    (scores,) = classify("single", file.read_bytes())
    labels = (network / "labels.txt").read_text().splitlines()
    assert list(scores) == [labels[index] for index in expected.topk(5).indices]
    np.testing.assert_allclose(list(scores.values()), expected.topk(5).values, rtol=1e-4)
    assert best(scores) == "palace"


def test_requests_share_a_batch_and_a_broken_image_costs_the_others_nothing(
    classify: Callable[..., list[Any]], server: RunningServer, sample: Callable[[str], Path]
) -> None:
    china, flower = sample("china.jpg").read_bytes(), sample("flower.jpg").read_bytes()
    (of_china,), (of_flower,) = classify("single", china), classify("single", flower)
    assert [best(scores) for scores in classify("batched", china, flower, china)] == [
        best(of_china),
        best(of_flower),
        best(of_china),
    ]
    first, broken, last = classify("batched", flower, china[: len(china) // 2], china)
    assert (best(first), best(last)) == (best(of_flower), best(of_china))
    assert "bytes that are no image: image file is truncated" in broken
    assert broken.startswith(("400: ", "StatusCode.INVALID_ARGUMENT: "))
    with tritonclient.http.InferenceServerClient(server.http_url) as client:
        (statistics,) = client.get_inference_statistics("batched")["model_stats"]
    assert {entry["batch_size"] for entry in statistics["batch_stats"]} == {3}


def test_json_carries_an_image_in_base64(server: RunningServer, sample: Callable[[str], Path]) -> None:
    text = base64.b64encode(sample("flower.jpg").read_bytes()).decode()
    body = {"inputs": [{"name": "data", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}
    response = httpx.post(f"http://{server.http_url}/v2/models/single/infer", json=body)
    assert response.status_code == 200, response.text
    (prediction,) = response.json()["outputs"][0]["data"]
    assert best(json.loads(prediction)) == "daisy"
