"""TorchServe's archives, packed and unpacked, as models."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trivet.backend import BackendInstance, InstanceContext, RequestInstance
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor, object_array

Create = Callable[..., BackendInstance]

MODEL = """
import torch

class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.sum(dim=1) * self.weight
"""
HANDLER = """
import json
import re
import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException
from numbers_of_text import parse

class SumHandler(BaseHandler):
    def preprocess(self, data):
        self.batch = len(data)
        rows = [row.get("data") or row.get("body") for row in data]
        if any(row == b"bad" for row in rows):
            raise PredictionException("this is no list", 400)
        if any(row == b"worse" for row in rows):
            raise PredictionException("this is no text")
        return torch.tensor([parse(row) for row in rows])

    def postprocess(self, data):
        ids = [self.context.get_request_id(index) for index in range(self.batch)]
        return [{"label": self.mapping[str(int(value))], "batch": self.batch, "id": id} for value, id in zip(data, ids)]
"""
HELPER = "import json\n\ndef parse(text):\n    return json.loads(bytes(text))\n"
MANIFEST_MODEL = {
    "modelName": "sums",
    "handler": "handler.py",
    "modelFile": "model.py",
    "serializedFile": "weights.pt",
}
MANIFEST = {"runtime": "python", "model": MANIFEST_MODEL, "archiverVersion": "0.12.0"}


def files(**replaced: Any) -> dict[str, Any]:
    return {
        "MAR-INF/MANIFEST.json": json.dumps(MANIFEST),
        "model.py": MODEL,
        "handler.py": HANDLER,
        "numbers_of_text.py": HELPER,
        "index_to_name.json": json.dumps({"3": "three", "7": ["n7", "seven"]}),
        "weights.pt": lambda path: torch.save({"weight": torch.ones(1)}, path),
        **replaced,
    }


def archive(contents: dict[str, Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            for name, content in contents.items():
                if callable(content):
                    with packed.open(name, "w") as member:
                        content(member)
                else:
                    packed.writestr(name, content)

    return write


def request(*texts: bytes, id: str = "") -> InferenceRequest:
    made = InferenceRequest("m", {"data": Tensor.from_numpy("data", object_array(list(texts), (len(texts), 1)))}, id=id)
    made.batch_size = len(texts)
    return made


def execute(instance: BackendInstance, *requests: InferenceRequest) -> list[InferenceResponse]:
    assert isinstance(instance, RequestInstance)
    responses = instance.execute(requests)
    assert responses is not None
    return [response for response in responses if response is not None]


def answers(response: InferenceResponse, name: str = "prediction") -> list[Any]:
    assert response.error is None, response.error
    (tensor,) = response.outputs
    assert tensor.name == name
    return [json.loads(item) for item in tensor.numpy().reshape(-1).tolist()]


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_is_served_without_a_configuration(packed: bool, context: Any, create: Create) -> None:
    contents = files(**{"model-config.yaml": "batchSize: 4\nmaxBatchDelay: 5\n"})
    made_context = context({"model.mar": archive(contents)} if packed else contents)
    made = create(made_context)
    config = made_context.config
    assert config.max_batch_size == 4
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    first, second = execute(made, request(b"[1, 2]", id="a"), request(b"[3, 4]", b"[2, 1]", id="b"))
    assert answers(first) == [{"label": "three", "batch": 3, "id": "a"}]
    assert answers(second) == [{"label": "seven", "batch": 3, "id": "b"}, {"label": "three", "batch": 3, "id": "b"}]


def test_what_was_unpacked_and_imported_goes_with_the_model(backend: Any, context: Any) -> None:
    made_context = context({"model.mar": archive(files())})
    backend.auto_complete(made_context)
    before = set(sys.modules)
    model = backend.load(made_context)
    folder = model._archive.folder
    made = model.create_instance(InstanceContext("m_0_0", "CPU"))
    assert folder.is_dir()
    made.close()
    model.close()
    assert not folder.exists()
    assert not {name for name in set(sys.modules) - before if name.startswith("trivet_model_")}


def test_numbers_in_and_out(context: Any, create: Create) -> None:
    handler = "from ts.torch_handler.base_handler import BaseHandler\n\nclass Plain(BaseHandler):\n    pass\n"
    config = """max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }"""
    made = create(context(files(**{"handler.py": handler}), config))
    asked = InferenceRequest("m", {"x": Tensor.from_numpy("x", np.arange(6, dtype=np.float32).reshape(2, 3))})
    asked.batch_size = 2
    (response,) = execute(made, asked)
    assert response.outputs[0].numpy().tolist() == [[3], [12]]


def test_an_answer_that_the_handler_keeps_is_copied(context: Any, create: Create) -> None:
    handler = """
import torch

total = torch.zeros(1)

def handle(data, context):
    return [total.add_(torch.from_numpy(row["x"])) for row in data or ()]
"""
    config = (
        """input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }"""
    )
    made = create(context(files(**{"handler.py": handler}), config))
    one = {"x": Tensor.from_numpy("x", np.ones(1, np.float32))}
    first, second = (execute(made, InferenceRequest("m", one))[0] for _ in range(2))
    assert [response.outputs[0].numpy().tolist() for response in (first, second)] == [[1], [2]]


@pytest.mark.parametrize("answer", ["300", "'many'", "[1, [2]]"])
def test_an_answer_that_the_output_cannot_hold(answer: str, context: Any, create: Create) -> None:
    handler = f"def handle(data, context):\n    return [{answer}] * len(data or ())\n"
    config = """max_batch_size: 8
        input { name: "data" data_type: TYPE_STRING dims: [ 1 ] }
        output { name: "y" data_type: TYPE_UINT8 dims: [ 1 ] }"""
    (response,) = execute(create(context(files(**{"handler.py": handler}), config)), request(b"a"))
    with pytest.raises(InternalError, match="the handler's answer fits no output"):
        raise response.error or AssertionError


def test_a_function_as_entry_point(context: Any, create: Create) -> None:
    handler = """
_service = None

def handle(data, context):
    global _service
    if data is None:
        _service = context.system_properties["model_dir"]
        return None
    return [bytes(row["data"]) + b"!" for row in data]
"""
    made = create(context(files(**{"handler.py": handler})))
    (response,) = execute(made, request(b"hey"))
    assert response.outputs[0].numpy().tolist() == [[b"hey!"]]


def test_instances_share_nothing_of_a_handlers_module(context: Any, backend: Any) -> None:
    handler = """
rows = []

def handle(data, context):
    rows.extend(bytes(row["data"]) for row in data or ())
    return [b",".join(rows)] * len(data or ())
"""
    made_context = context({"model.mar": archive(files(**{"handler.py": handler}))})
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    first, second = (model.create_instance(InstanceContext(f"m_0_{number}", "CPU")) for number in range(2))
    for made, text in ((first, b"a"), (second, b"b"), (first, b"c")):
        (response,) = execute(made, request(text))
    assert response.outputs[0].numpy().tolist() == [[b"a,c"]]
    for closed in (first, second, model):
        closed.close()


def test_a_handlers_own_error_is_the_callers(context: Any, create: Create) -> None:
    made = create(context(files()))
    with pytest.raises(InvalidArgumentError, match=r"this is no list \(model 'm' version 1\)"):
        execute(made, request(b"bad"))
    with pytest.raises(InternalError, match=r"PyTorch execute failure: .*'9'"):
        execute(made, request(b"[9]"))
    assert answers(execute(made, request(b"[1, 2]"))[0])[0]["label"] == "three"


def test_an_answer_for_each_row(context: Any, create: Create) -> None:
    handler = "def handle(data, context):\n    return data and [1]\n"
    made = create(context(files(**{"handler.py": handler})))
    with pytest.raises(InternalError, match="number of batch response mismatched, expect: 2, got: 1"):
        execute(made, request(b"a", b"b"))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"MAR-INF/MANIFEST.json": "{}"}, "no usable MAR-INF/MANIFEST.json"),
        ({"handler.py": "import no_such_package\n", "r.txt": ""}, "its handler needs the module 'no_such_package'"),
        ({"handler.py": "x = 1\n"}, "Expected only one class in custom service code"),
        ({"weights.pt": lambda path: torch.save(torch.nn.Linear(1, 1), path)}, "raised UnpicklingError"),
        ({"model.py": "x = 1\n"}, "Expected only one class as model definition, and 'model.py' has 0"),
        ({"model-config.yaml": b"\xff"}, "'model-config.yaml' of the archive is no YAML"),
        ({"model-config.yaml": f"batchSize: {1 << 31}"}, "'batchSize' of the archive's configuration is 2147483648"),
        (
            {"MAR-INF/MANIFEST.json": json.dumps({"model": {**MANIFEST_MODEL, "handler": "handler.py:run"}})},
            "the handler has neither a function 'run' nor a class of that name",
        ),
    ],
)
def test_archives_that_cannot_be_loaded(replaced: dict[str, Any], message: str, context: Any, create: Create) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        create(context({"model.mar": archive(files(**replaced))}))


def test_an_archive_with_a_damaged_file(context: Any, create: Create) -> None:
    def flag_as_encrypted(member: bytes) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            archive(files())(path)
            content = bytearray(path.read_bytes())
            # In the list of files, whose entries have their name at 46 and flags at 8.
            content[content.rindex(member) - 46 + 8] |= 1
            path.write_bytes(content)

        return write

    with pytest.raises(InvalidArgumentError, match=r"no usable MAR-INF/MANIFEST.json: RuntimeError: .*encrypted"):
        create(context({"model.mar": flag_as_encrypted(b"MAR-INF/MANIFEST.json")}))
    with pytest.raises(InvalidArgumentError, match=r"'model.mar' cannot be unpacked: .*encrypted"):
        create(context({"model.mar": flag_as_encrypted(b"handler.py")}))


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        ("image_clasifier", "object_detector$"),
        ("text_classifier", "object_detector: it needs a vocabulary of torchtext"),
    ],
)
def test_a_handler_that_is_not_here(handler: str, why: str, context: Any, create: Create) -> None:
    manifest = {"model": {**MANIFEST_MODEL, "handler": handler}}
    message = rf"handler '{handler}' is not in the archive, and none of .*: base_handler, image_classifier, .*{why}"
    with pytest.raises(InvalidArgumentError, match=message):
        create(context(files(**{"MAR-INF/MANIFEST.json": json.dumps(manifest)})))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (b"bad", InvalidArgumentError, "this is no list (model 'm'"),
        (b"worse", InternalError, "this is no text (status 500"),
        (b"{", InternalError, "PyTorch execute failure: Expecting"),
        (b"[9]", InternalError, "PyTorch execute failure: KeyError: '9'"),
    ],
)
def test_an_exception_costs_no_other_request(
    text: bytes, kind: type[Exception], message: str, context: Any, create: Create
) -> None:
    made = create(context(files()))
    good, bad, other = execute(made, request(b"[1, 2]"), request(text), request(b"[3, 4]"))
    assert answers(good)[0]["label"] == "three"
    assert isinstance(bad.error, kind)
    assert message in str(bad.error)
    assert answers(other)[0]["label"] == "seven"


@pytest.mark.parametrize(
    ("error", "config"),
    [("ValueError('no')", "sequence_batching { direct { } }"), ("MemoryError('no')", "")],
    ids=["a sequence's state", "no memory"],
)
def test_a_handler_is_not_called_again_where_that_does_harm(
    error: str, config: str, context: Any, create: Create
) -> None:
    handler = f"""
calls = []

def handle(data, context):
    if data and len(data) > 1:
        calls.append(len(data))
        raise {error}
    return [{{"calls": calls}}] * len(data or ())
"""
    made = create(context(files(**{"handler.py": handler}), config))
    with pytest.raises(TrivetError, match="no"):
        execute(made, request(b"a"), request(b"b"))
    assert answers(execute(made, request(b"a"))[0]) == [{"calls": [2]}]
