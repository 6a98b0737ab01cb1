"""Ensembles as a real Triton serves them: requests, streams, graphs that do not fit, and models that come and go."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from .pairs import Endpoints, Pair, running_pair
from .waiting import wait_until

pytestmark = pytest.mark.differential

Json = Any
Step = dict[str, Any]

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]
        if self.name == "broken":
            raise RuntimeError("cannot be loaded")

    def execute(self, requests):
        return [getattr(self, self.name)(request) for request in requests]

    def value(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()

    def answer(self, **outputs):
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])

    def increment(self, request):
        x = self.value(request, "x")
        if (x < 0).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("negative", pb_utils.TritonError.INVALID_ARG))
        return self.answer(y=x + 1, z=x * 10)

    small = whole = increment

    def add(self, request):
        a, b = self.value(request, "a"), self.value(request, "b")
        return self.answer(s=a if b is None else a + b)

    def evens(self, request):
        x = self.value(request, "x")
        return self.answer(y=x) if x.flat[0] % 2 == 0 else self.answer()

    def told(self, request):
        x = self.value(request, "x")
        told = [request.correlation_id(), request.flags() & 3, request.timeout(), len(request.request_id())]
        return self.answer(y=(x * 0 + told).astype("float32"))

class Decoupled(TritonPythonModel):
    def execute(self, requests):
        for request in requests:
            x = self.value(request, "x")
            sender = request.get_response_sender()
            for number in range(int(x.flat[0])):
                sender.send(self.answer(y=x + number))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def tensors(*names: str, dims: Sequence[int] = (4,), optional: str = "") -> list[Json]:
    return [
        {"name": name, "data_type": "TYPE_FP32", "dims": list(dims)} | ({"optional": True} if name in optional else {})
        for name in names
    ]


def model(name: str, *, inputs: Json, outputs: Json, batch: int = 8, **more: Json) -> Json:
    return {"name": name, "backend": "python", "max_batch_size": batch, "input": inputs, "output": outputs, **more}


X, YZ, Y = tensors("x"), tensors("y", "z"), tensors("y")
MODELS = [
    model("increment", inputs=X, outputs=YZ),
    model("small", inputs=X, outputs=YZ, batch=2),
    model("whole", inputs=tensors("x", dims=(-1, 4)), outputs=tensors("y", "z", dims=(-1, 4)), batch=0),
    model("broken", inputs=X, outputs=Y),
    model("add", inputs=tensors("a", "b", optional="b"), outputs=tensors("s")),
    model("evens", inputs=X, outputs=[{**Y[0], "label_filename": "colours.txt"}]),
    model("told", inputs=X, outputs=Y),
    model("repeat", inputs=X, outputs=Y, model_transaction_policy={"decoupled": True}),
]


def step(name: str, inputs: dict[str, str], outputs: dict[str, str], version: int = -1) -> Step:
    return {"model_name": name, "model_version": version, "input_map": inputs, "output_map": outputs}


def ensemble(*steps: Step, inputs: Json = None, outputs: Json = None, batch: int = 8, **more: Json) -> Json:
    return {
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": inputs or tensors("I"),
        "output": outputs or tensors("O"),
        "ensemble_scheduling": {"step": list(steps)},
        **more,
    }


READY = {
    "chain": ensemble(
        step("increment", {"x": "I"}, {"y": "t"}),
        step("increment", {"x": "t"}, {"y": "O", "z": "Z"}),
        outputs=tensors("O", "Z"),
    ),
    "diamond": ensemble(
        step("increment", {"x": "I"}, {"y": "l", "z": "r"}), step("add", {"a": "l", "b": "r"}, {"s": "O"})
    ),
    "optional": ensemble(step("add", {"a": "I", "b": "J"}, {"s": "O"}), inputs=tensors("I", "J", optional="J")),
    "left_out": ensemble(step("evens", {"x": "I"}, {"y": "t"}), step("add", {"a": "I", "b": "t"}, {"s": "O"})),
    "labels": ensemble(step("evens", {"x": "I"}, {"y": "O"})),
    "told": ensemble(step("told", {"x": "I"}, {"y": "O"})),
    "unbatched_model": ensemble(step("whole", {"x": "I"}, {"y": "t"}), step("increment", {"x": "t"}, {"y": "O"})),
    "unbatched": ensemble(step("increment", {"x": "I"}, {"y": "O"}), batch=0),
    "nested": ensemble(step("chain", {"I": "I"}, {"O": "t"}), step("increment", {"x": "t"}, {"y": "O"})),
    "stream": ensemble(step("repeat", {"x": "I"}, {"y": "t"}), step("increment", {"x": "t"}, {"y": "O"})),
}
# Its members' names are taken by models, so ensembles are called otherwise where they clash.
NAMES = {name: name if name not in {m["name"] for m in MODELS} else f"{name}_ensemble" for name in READY}

FAILING = {
    "missing": ensemble(step("nosuch", {"x": "I"}, {"y": "O"})),
    "version": ensemble(step("increment", {"x": "I"}, {"y": "O"}, 7)),
    "itself": ensemble(step("bad", {"I": "I"}, {"O": "O"})),
    "no such input": ensemble(step("evens", {"x": "I"}, {"y": "t"}), step("add", {"a": "t", "q": "I"}, {"s": "O"})),
    "no such output": ensemble(step("evens", {"x": "I"}, {"q": "O"})),
    "input not mapped": ensemble(step("add", {"b": "I"}, {"s": "O"})),
    "batch size": ensemble(step("small", {"x": "I"}, {"y": "O"})),
    "datatype": ensemble(
        step("evens", {"x": "I"}, {"y": "O"}), inputs=[{"name": "I", "data_type": "TYPE_INT32", "dims": [4]}]
    ),
    "shape": ensemble(step("evens", {"x": "I"}, {"y": "O"}), inputs=tensors("I", dims=(5,))),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = tmp_path_factory.mktemp("repository")
    for config in MODELS:
        write(models, config)
        source = MODEL if config["name"] != "repeat" else MODEL.replace("class TritonP", "class P", 1).replace(
            "class Decoupled(TritonPythonModel)", "class TritonPythonModel(PythonModel)"
        )  # fmt: skip
        (models / config["name"] / "1" / "model.py").write_text(source)
        (models / config["name"] / "colours.txt").write_text("red\ngreen\nblue\nwhite\n")
    for name, config in READY.items():
        write(models, {"name": NAMES[name], **config})
    write(models, {"name": "bad", **READY["chain"]})
    with running_pair(models, tmp_path_factory.mktemp("servers"), only=()) as pair:
        for name in NAMES.values():
            for server in pair:
                assert post(server, f"repository/models/{name}/load", {}) == (200, None), name
        yield pair


def write(models: Path, config: Json) -> None:
    from google.protobuf import json_format
    from trivet.config import ModelConfig

    folder = models / config["name"]
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(str(json_format.ParseDict(config, ModelConfig())))


def post(server: Endpoints, path: str, document: Json) -> tuple[int, Json]:
    connection = HTTPConnection(server.http, timeout=60)
    try:
        body = None if document is None else json.dumps(document)
        connection.request("GET" if document is None else "POST", f"/v2/{path}", body)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None
    finally:
        connection.close()


def infer(server: Endpoints, name: str, inputs: dict[str, Any], **more: Json) -> tuple[int, Json]:
    document = {
        "inputs": [
            {"name": key, "datatype": "FP32", "shape": list(np.shape(value)), "data": value}
            for key, value in inputs.items()
        ],
        **more,
    }
    status, answer = post(server, f"models/{NAMES[name]}/infer", document)
    if status == 200:
        # An unordered map decides on Triton's side.
        answer["outputs"].sort(key=lambda output: output["name"])
    return status, answer


ONE = [[1.0, 2.0, 3.0, 4.0]]
TWO = [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("name", "inputs", "more"),
    [
        ("chain", {"I": ONE}, {"id": "r1"}),
        ("chain", {"I": TWO}, {}),
        ("chain", {"I": ONE}, {"outputs": [{"name": "Z"}]}),
        ("chain", {"I": ONE}, {"parameters": {"sequence_id": 7, "sequence_start": True}}),
        ("chain", {"I": [[-1.0, 0.0, 0.0, 0.0]]}, {}),
        ("chain", {"I": [[1.0, 2.0]]}, {}),
        ("chain", {"J": ONE}, {}),
        ("chain", {"I": ONE}, {"outputs": [{"name": "t"}]}),
        ("diamond", {"I": TWO}, {}),
        ("optional", {"I": ONE}, {}),
        ("optional", {"I": ONE, "J": ONE}, {}),
        ("left_out", {"I": ONE}, {}),
        ("left_out", {"I": [[2.0, 2.0, 3.0, 4.0]]}, {}),
        ("labels", {"I": [[2.0, 3.0, 4.0, 5.0]]}, {"outputs": [{"name": "O", "parameters": {"classification": 2}}]}),
        ("told", {"I": ONE}, {}),
        (
            "told",
            {"I": ONE},
            {
                "id": "four",
                "parameters": {"sequence_id": 9, "sequence_start": True, "sequence_end": True, "timeout": 5000000},
            },
        ),
        ("unbatched_model", {"I": TWO}, {}),
        ("unbatched", {"I": [1.0, 2.0, 3.0, 4.0]}, {}),
        ("nested", {"I": TWO}, {}),
        ("nested", {"I": [[-9.0, 0.0, 0.0, 0.0]]}, {}),
    ],
)
def test_a_request(servers: Pair, name: str, inputs: dict[str, Any], more: Json) -> None:
    assert infer(servers.trivet, name, inputs, **more) == infer(servers.triton, name, inputs, **more)


@pytest.mark.parametrize("name", READY)
def test_metadata_and_configuration(servers: Pair, name: str) -> None:
    answers = []
    for server in servers:
        config = post(server, f"models/{NAMES[name]}/config", None)[1]
        # A field of later versions of Triton.
        config["ensemble_scheduling"].pop("max_inflight_requests", None)
        answers.append((post(server, f"models/{NAMES[name]}", None), config))
    assert answers[1] == answers[0]


@pytest.mark.parametrize("what", FAILING)
def test_a_graph_that_does_not_fit(servers: Pair, what: str) -> None:
    answers = []
    for server in servers:
        status, body = post(server, "repository/models/bad/load", {"parameters": {"config": json.dumps(FAILING[what])}})
        answers.append((status, body["error"]))
        post(server, "repository/models/bad/unload", {})
    (triton_status, triton), (trivet_status, trivet) = answers
    assert trivet_status == triton_status
    # Trivet adds the field and says all that is wrong; of a circle it names the models where Triton writes dots.
    expected = triton.rstrip("\n").replace("e -> ... -> ", "").replace("bad -> ... -> bad -> bad", "bad -> bad")
    assert trivet.startswith(expected)


def stream(server: Endpoints, start: float) -> list[tuple[Any, ...]]:
    """What comes over a gRPC stream for one request, the marked end included."""
    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    x = grpcclient.InferInput("I", [1, 4], "FP32")
    x.set_data_from_numpy(np.array([[start, 0, 0, 0]], np.float32))
    found: list[tuple[Any, ...]] = []
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(NAMES["stream"], [x], enable_empty_final_response=True)
        final = False
        while not final:
            result, error = arrived.get(timeout=30)
            if error is not None:
                found.append(("error", error.message()))
                break
            response = result.get_response()
            final = response.parameters["triton_final_response"].bool_param
            if response.outputs:
                found.append(tuple(result.as_numpy("O").flatten().tolist()))
        client.stop_stream()
    return found


@pytest.mark.parametrize("start", [0.0, 1.0, 5.0, 40.0])
def test_a_decoupled_model_in_a_stream(servers: Pair, start: float) -> None:
    assert stream(servers.trivet, start) == stream(servers.triton, start)


def statistics_of(server: Endpoints, name: str) -> Json:
    (statistics,) = post(server, f"models/{NAMES[name]}/stats", None)[1]["model_stats"]
    return statistics


def test_statistics(servers: Pair) -> None:
    answers = []
    for server in servers:
        # Counted from here: a real Triton makes an ensemble anew when a model is loaded that shares its members.
        post(server, f"repository/models/{NAMES['diamond']}/unload", {})
        post(server, f"repository/models/{NAMES['diamond']}/load", {})
        for value in (ONE, TWO, TWO):
            assert infer(server, "diamond", {"I": value})[0] == 200
        # A real Triton counts a request, and last its execution, after it answered it.
        wait_until(lambda server=server: statistics_of(server, "diamond")["execution_count"] == 3, "three are counted")
        statistics = statistics_of(server, "diamond")
        batches = {
            batch["batch_size"]: [batch[part]["count"] for part in ("compute_input", "compute_infer", "compute_output")]
            for batch in statistics["batch_stats"]
        }
        parts = {name: part["count"] for name, part in statistics["inference_stats"].items()}
        answers.append((statistics["inference_count"], statistics["execution_count"], parts, batches))
    assert answers[1] == answers[0]


def test_models_that_come_and_go(servers: Pair) -> None:
    """The same calls to both: after each, what is ready, and what a request to an ensemble says."""
    calls = [
        ("increment", "unload", {}),
        ("increment", "load", {}),
        ("nested", "unload", {"unload_dependents": True}),
        ("nested", "load", {}),
        ("chain", "unload", {"unload_dependents": True}),
        ("nested", "load", {}),
        ("diamond", "unload", {}),
        ("add", "unload", {}),
        ("add", "load", {}),
        ("diamond", "load", {}),
        ("nosuch", "unload", {}),
        ("nosuch", "load", {}),
    ]
    told = []
    for server in servers:
        seen = []
        for name, action, parameters in calls:
            answer = post(server, f"repository/models/{NAMES.get(name, name)}/{action}", {"parameters": parameters})
            ready = {entry["name"] for entry in post(server, "repository/index", {"ready": True})[1]} - {"bad"}
            seen.append((name, action, answer, sorted(ready), infer(server, "nested", {"I": ONE})))
        told.append(seen)
    for triton, trivet in zip(*told, strict=True):
        assert trivet == triton
