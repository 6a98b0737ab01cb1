"""One network out of one checkpoint in three frameworks, on one server: one client gets one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from trivet.testing import RunningServer, running_server

CLASSIFIERS = {
    "image_classification": "onnxruntime",
    "image_classification_torchscript": "pytorch",
    "image_classification_savedmodel": "tensorflow",
}


@pytest.fixture(scope="module")
def server(choose_models: Callable[..., Path]) -> Iterator[RunningServer]:
    with running_server(choose_models(CLASSIFIERS)) as running:
        yield running


@pytest.fixture(scope="module")
def images(sample: Callable[[str], Path]) -> Any:
    """FP32 [3, 3, 224, 224]."""
    from processing import imagenet_pixels

    return np.concatenate([imagenet_pixels(sample(name)) for name in ("china.jpg", "flower.jpg", "grace_hopper.jpg")])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_three_frameworks_give_one_answer(
    protocol: str, server: RunningServer, new_client: Callable[..., Any], images: Any
) -> None:
    client = new_client(protocol, server)
    assert {name: client.config(name)["backend"] for name in CLASSIFIERS} == CLASSIFIERS
    answers = {name: client.infer(name, {"image": images}, "probabilities") for name in CLASSIFIERS}
    classes = {name: client.classify(name, {"image": images}, "probabilities", 3) for name in CLASSIFIERS}
    client.client.close()
    for name in CLASSIFIERS:
        np.testing.assert_allclose(answers[name], answers["image_classification"], atol=1e-5)
        assert classes[name] == classes["image_classification"]
    assert [best[0] for best in classes["image_classification"]][:2] == ["palace", "daisy"]


def test_they_do_so_side_by_side(server: RunningServer, images: Any) -> None:
    """Three frameworks with threads of their own in one process."""

    def ask(number: int) -> tuple[int, str, Any]:
        name, picture = list(CLASSIFIERS)[number % 3], number // 3 % 3
        image = tritonclient.grpc.InferInput("image", [1, 3, 224, 224], "FP32")
        image.set_data_from_numpy(images[picture : picture + 1])
        return picture, name, client.infer(name, [image]).as_numpy("probabilities")[0]

    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(ask, range(27)))
    for picture in range(3):
        of_picture = [answer for asked, _, answer in answers if asked == picture]
        np.testing.assert_allclose(of_picture, [of_picture[0]] * 9, atol=1e-5)
