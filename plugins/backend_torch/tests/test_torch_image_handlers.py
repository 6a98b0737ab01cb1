"""TorchServe's own handlers of images, which an archive names and does not hold."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_torch_handlers import Create, answers, archive, execute, request
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet_backend_torch.ts.torch_handler import transforms
from trivet_backend_torch.ts.torch_handler.image_classifier import ImageClassifier

LABELS = {"0": "red", "1": ["n01", "green"], "2": "blue"}


class Brightest(torch.nn.Module):
    """Which of the three channels is the brightest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=[2, 3])


class Pixels(torch.nn.Module):
    """The brightest channel of each pixel, as torchvision's networks of segmentation answer."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": x}


class Corner(torch.nn.Module):
    """Finds two objects in each image, one of which it is sure of."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found: list[dict[str, torch.Tensor]] = []
        for _ in range(x.shape[0]):
            boxes = torch.tensor([[0.0, 0.0, 8.0, 6.0], [1.0, 1.0, 2.0, 2.0]])
            found.append({"boxes": boxes, "labels": torch.tensor([2, 0]), "scores": torch.tensor([0.75, 0.25])})
        return found


def files(network: torch.nn.Module, handler: str) -> dict[str, Any]:
    scripted = torch.jit.script(network)  # type: ignore[no-untyped-call]
    model = {"modelName": "m", "handler": handler, "serializedFile": "network.pt"}
    return {
        "MAR-INF/MANIFEST.json": json.dumps({"model": model}),
        "network.pt": lambda member: torch.jit.save(scripted, member),  # type: ignore[no-untyped-call]
        "index_to_name.json": json.dumps(LABELS),
        "model-config.yaml": "batchSize: 4\n",
    }


def picture(color: str, size: tuple[int, int] = (300, 260), format: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(file, format)
    return file.getvalue()


def test_the_tensor_is_that_of_torchvision() -> None:
    """The numbers are torchvision 0.29's: Resize(256), CenterCrop(224), ToTensor, Normalize."""
    y, x = np.mgrid[0:200, 0:300]
    pixels = np.stack([x * 255 // 299, y * 255 // 199, (x * y) % 256], 2).astype(np.uint8)
    tensor = transforms.ImageNet()(Image.fromarray(pixels))
    assert tensor.shape == (3, 224, 224)
    np.testing.assert_allclose(tensor[:, 0, 0], [-1.227417, -1.773109, 1.001656], atol=1e-6)
    np.testing.assert_allclose(tensor[:, 112, 100], [-0.062934, 0.205182, -0.148671], atol=1e-6)
    assert float(tensor.double().mean()) == pytest.approx(0.212691, abs=1e-6)
    assert float(tensor.double().std()) == pytest.approx(0.910556, abs=1e-6)


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "YCbCr"),
        ("WEBP", "RGB"),
    ],
)
def test_classes_come_with_their_probabilities_the_best_first(
    format: str, mode: str, context: Any, create: Create
) -> None:
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}))
    (response,) = execute(made, request(picture("lime", format=format, mode=mode), picture("blue")))
    green, blue = answers(response)
    assert next(iter(green)) == "green"
    assert next(iter(blue)) == "blue"
    assert sum(green.values()) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_is_the_callers_fault_and_costs_no_other(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}))
    whole = picture("red")
    good, text, torn = execute(made, request(whole), request(b"no image"), request(whole[:60]))
    assert next(iter(answers(good)[0])) == "red"
    assert isinstance(text.error, InvalidArgumentError)
    assert "8 bytes that are no image of a known format and begin with b'no image'" in str(text.error)
    assert isinstance(torn.error, InvalidArgumentError)


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "0 bytes that are no image of a known format (model"),
        (encoded(Image.new("RGB", (8, 8)), "AVIF").replace(b"iloc", b"xloc"), "no image: Failed to decode image"),
        (encoded(Image.new("RGB", (8, 8)), "EPS"), "no image: PostScript is not read"),
        (encoded(Image.new("I;16", (8, 8), 1000)), "an image of mode 'I;16', and 8 bits a channel are expected"),
        (encoded(Image.new("RGB", (400_000, 1))), "an image of 400000x1 pixels, which would have 102400000x256"),
    ],
    ids=["nothing", "damaged", "a program", "deep", "long and thin"],
)
def test_images_that_no_network_gets(file: bytes, message: str, context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}))
    good, refused = execute(made, request(picture("red")), request(file))
    assert next(iter(answers(good)[0])) == "red"
    assert isinstance(refused.error, InvalidArgumentError)
    assert message in str(refused.error)


def test_an_image_of_more_pixels_than_pillow_allows(
    context: Any, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidArgumentError, match="exceeds limit of 2000 pixels"):
        execute(made, request(picture("red")))


def test_a_class_has_its_number_where_there_are_no_labels_and_is_an_error_where_it_lacks_one(
    context: Any, create: Create
) -> None:
    contents = files(Brightest(), "image_classifier")
    too_few = {**contents, "index_to_name.json": '{"object_type_names": ["red", "green"]}'}
    with pytest.raises(InternalError, match=r"index_to_name\.json has no label for class 2, and 2 others"):
        execute(create(context({"model.mar": archive(too_few)}, name="few")), request(picture("blue")))
    del contents["index_to_name.json"]
    (response,) = execute(create(context({"model.mar": archive(contents)})), request(picture("blue")))
    assert next(iter(answers(response)[0])) == "2"


def test_each_pixel_has_its_class(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Pixels(), "image_segmenter"))}))
    (response,) = execute(made, request(picture("blue")))
    pixels = np.array(answers(response)[0])
    assert pixels.shape == (224, 224, 2)
    assert (pixels[..., 0] == 2).all()
    assert (pixels[..., 1] > 0.5).all()


def test_objects_have_a_label_a_box_and_a_score(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Corner(), "object_detector"))}))
    (response,) = execute(made, request(picture("red", (16, 12)), picture("red", (16, 12))))
    assert answers(response) == [[{"blue": [0, 0, 8, 6], "score": 0.75}]] * 2


class Extent(torch.nn.Module):
    """Finds each image as a whole."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        box = torch.tensor([[0.0, 0.0, float(x.shape[3]), float(x.shape[2])]])
        return [{"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([1.0])} for _ in x]


def test_objects_are_detected_in_images_of_several_sizes(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Extent(), "object_detector"))}))
    small, large = execute(made, request(picture("red", (4, 3))), request(picture("red", (40, 30))))
    assert answers(small) == [[{"green": [0, 0, 4, 3], "score": 1}]]
    assert answers(large) == [[{"green": [0, 0, 40, 30], "score": 1}]]


def test_the_base_handler_takes_json_of_numbers(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(torch.nn.Identity(), "base_handler"))}))
    first, bad, others = execute(made, request(b"[1.5, 2]"), request(b"[1.5, [2]]"), request(b"[3]", b"[4]"))
    assert answers(first) == [[1.5, 2]]
    assert isinstance(bad.error, InvalidArgumentError)
    assert str(bad.error).startswith("expected numbers, or lists of numbers of one length: ")
    assert answers(others) == [[3], [4]]
    with pytest.raises(InvalidArgumentError, match=r"expected rows of one shape, and they are \[1\] and \[2\]"):
        execute(made, request(b"[1]", b"[1, 2]"))


def test_a_handler_derives_from_one_of_them(context: Any, create: Create) -> None:
    handler = """
import base64
from ts.torch_handler.image_classifier import ImageClassifier

class Best(ImageClassifier):
    def initialize(self, context):
        super().initialize(context)
        self.set_max_result_classes(1)

    def preprocess(self, data):
        return super().preprocess([{"body": bytes(row["data"]).decode()} for row in data])
"""
    made = create(context({**files(Brightest(), "handler.py"), "handler.py": handler}))
    (response,) = execute(made, request(base64.b64encode(picture("lime"))))
    assert [list(answer) for answer in answers(response)] == [["green"]]
    assert ImageClassifier.topk == 5


def test_a_handlers_own_processing_gets_the_image_in_the_mode_of_its_file(context: Any, create: Create) -> None:
    """As TorchServe's example for digits, whose network takes one channel."""
    handler = """
import numpy as np
import torch
from ts.torch_handler.image_classifier import ImageClassifier

class Digits(ImageClassifier):
    topk = 1

    def image_processing(self, image):
        return torch.from_numpy(np.array(image))[None] / 255
"""

    class OneChannel(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.reshape(-1, 28 * 28).mean(dim=1)
            return torch.stack([1 - bright, bright], dim=1)

    made = create(context({**files(OneChannel(), "handler.py"), "handler.py": handler}))
    dark, bright = (encoded(Image.new("L", (28, 28), level)) for level in (20, 230))
    (response,) = execute(made, request(dark, bright))
    assert [list(answer) for answer in answers(response)] == [["red"], ["green"]]


def test_numbers_are_taken_as_they_are(context: Any, create: Create) -> None:
    config = """max_batch_size: 4
        input { name: "pixels" data_type: TYPE_FP64 dims: [ 3, -1, -1 ] }
        output { name: "prediction" data_type: TYPE_STRING dims: [ 1 ] }"""
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}, config))
    blue, of_another_size = (np.zeros((1, 3, *size)) for size in ((2, 2), (5, 4)))
    blue[:, 2] = 9
    of_another_size[:, 1] = 9
    asked = [InferenceRequest("m", {"pixels": Tensor.from_numpy("pixels", each)}) for each in (blue, of_another_size)]
    for each in asked:
        each.batch_size = 1
    assert [next(iter(answers(response)[0])) for response in execute(made, *asked)] == ["blue", "green"]


def test_an_image_comes_in_base64_where_requests_are_json(context: Any, create: Create) -> None:
    made = create(context({"model.mar": archive(files(Brightest(), "image_classifier"))}))
    (response,) = execute(made, request(picture("blue"), base64.b64encode(picture("blue"))))
    of_file, of_text = answers(response)
    assert of_file == of_text
