"""Traces side by side: the files of both servers hold the same entries for the same requests, times aside."""

from __future__ import annotations

import json
import queue
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from .differences import DIFFERENCES
from .pairs import Endpoints, running_triton, running_trivet

pytestmark = pytest.mark.differential

MODELS = Path(__file__).parent / "models"
USED = ("double", "decoupled", "types", "strings")

ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [{ name: "IN" data_type: TYPE_FP32 dims: [ 16 ] }]
output [{ name: "OUT" data_type: TYPE_FP32 dims: [ 16 ] }]
ensemble_scheduling { step [
  {
    model_name: "double" model_version: -1
    input_map { key: "INPUT0" value: "IN" } output_map { key: "OUTPUT0" value: "between" }
  },
  {
    model_name: "double" model_version: -1
    input_map { key: "INPUT0" value: "between" } output_map { key: "OUTPUT0" value: "OUT" }
  }
] }
"""

ASKING = '''
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.ask(request) for request in requests]

    def ask(self, request):
        """Calls the ensemble as part of its own trace."""
        x = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        called = pb_utils.InferenceRequest(
            model_name="twice", inputs=[pb_utils.Tensor("IN", x)], requested_output_names=["OUT"], trace=request.trace()
        )
        result = pb_utils.get_output_tensor_by_name(called.exec(), "OUT").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", result)])
'''


class Server(NamedTuple):
    """One server, and where its traces are."""

    endpoints: Endpoints
    file: Path


class Servers(NamedTuple):
    """Both."""

    triton: Server
    trivet: Server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("traces")
    models = folder / "models"
    for name in USED:
        shutil.copytree(MODELS / name, models / name)
    (models / "twice" / "1").mkdir(parents=True)
    (models / "twice" / "config.pbtxt").write_text(ENSEMBLE)
    shutil.copytree(models / "double", models / "asking")
    (models / "asking" / "1" / "model.py").write_text(ASKING)
    shutil.copytree(models / "double", models / "asking_apart")
    (models / "asking_apart" / "1" / "model.py").write_text(ASKING.replace(", trace=request.trace()", ""))
    files = [folder / name / "trace.json" for name in ("triton", "trivet")]
    settings = ["rate=1", "level=TIMESTAMPS", "level=TENSORS", "triton,log-frequency=1"]
    configs = [[*settings, f"triton,file={file}"] for file in files]
    options = [f"--trace-config={each}" for each in configs[0]]
    with (
        running_triton(models, files[0].parent, options=options) as triton,
        running_trivet(models, files[1].parent, trace_config=configs[1]) as trivet,
    ):
        yield Servers(Server(triton, files[0]), Server(trivet, files[1]))


def _input(module: Any, name: str, values: np.ndarray, datatype: str = "FP32") -> list[Any]:
    tensor = module.InferInput(name, values.shape, datatype)
    tensor.set_data_from_numpy(values)
    return [tensor]


X = np.arange(16, dtype=np.float32).reshape(1, 16) / 3


def _ask_over_http(endpoints: Endpoints) -> None:
    client = httpclient.InferenceServerClient(endpoints.http)
    client.infer("double", _input(httpclient, "INPUT0", X), request_id="a name")
    client.infer("double", _input(httpclient, "INPUT0", np.concatenate([X, X])))
    client.infer("twice", _input(httpclient, "IN", X), request_id="an ensemble")
    client.infer("asking", _input(httpclient, "INPUT0", X), request_id="a call")


def _ask_over_grpc(endpoints: Endpoints) -> None:
    client = grpcclient.InferenceServerClient(endpoints.grpc)
    client.infer("double", _input(grpcclient, "INPUT0", X), request_id="unary")
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    count = _input(grpcclient, "COUNT", np.array([3], np.int32), "INT32")
    client.async_stream_infer("decoupled", count, request_id="stream", enable_empty_final_response=True)
    assert [answers.get(timeout=30) for _ in range(4)] == [None] * 4
    client.stop_stream()


def _wait_for(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that a server writes, once they are all there."""
    for _ in range(300):
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError):
            time.sleep(0.1)  # nothing tells when another process writes a file
    raise AssertionError(f"there is no {path}")


def _described(entries: list[dict[str, Any]]) -> Any:
    """What is said of each request, as a tree, without what differs from run to run."""
    requests: dict[int, dict[str, Any]] = {}
    for entry in entries:
        request = requests.setdefault(entry["id"], {"times": {}, "tensors": [], "children": []})
        if "model_name" in entry:
            request["about"] = {k: v for k, v in entry.items() if k not in ("id", "parent_id")}
            request["parent"] = entry.get("parent_id")
        for stamp in entry.get("timestamps", ()):
            request["times"].setdefault(stamp["name"], []).append(stamp["ns"])
        if "activity" in entry:
            request["tensors"].append((entry["activity"], entry["tensor"]))
    roots = []
    for _, request in sorted(requests.items()):
        parent = request.pop("parent")
        (requests[parent]["children"] if parent else roots).append(request)
        times = request["times"]
        ordered = ("REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START")
        reached = [times[name][0] for name in (*ordered, "COMPUTE_END", "REQUEST_END") if name in times]
        assert reached == sorted(reached)
        request["times"] = {name: len(all_of_name) for name, all_of_name in times.items()}
    (root,) = roots
    return root


def test_the_same_files(servers: Servers) -> None:
    described = []
    for server in servers:
        _ask_over_http(server.endpoints)
        _ask_over_grpc(server.endpoints)
        described.append([_described(_wait_for(Path(f"{server.file}.{index}"))) for index in range(6)])
    triton, trivet = described
    assert trivet == triton


def _setting(server: Server, change: Mapping[str, Any] | None = None) -> Any:
    body = None if change is None else json.dumps(change).encode()
    request = urllib.request.Request(f"http://{server.endpoints.http}/v2/trace/setting", body)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)["error"]


def test_the_same_number_of_files(servers: Servers) -> None:
    """How many are traced is counted down, and the files are cut where the settings say, also when they change."""
    said = []
    for server in servers:
        first = len(list(server.file.parent.glob("trace.json.*")))
        client = httpclient.InferenceServerClient(server.endpoints.http)

        def ask(count: int, client: Any = client) -> None:
            for _ in range(count):
                client.infer("double", _input(httpclient, "INPUT0", X))

        seen = [_setting(server, {"log_frequency": "2", "trace_rate": "2", "trace_level": ["TIMESTAMPS"]})]
        ask(9)
        seen += [_setting(server, {"log_frequency": None, "trace_rate": None, "trace_count": "3"})]
        ask(5)
        seen += [_setting(server), _setting(server, {"trace_level": ["OFF"], "trace_count": None})]
        files = [_wait_for(Path(f"{server.file}.{first + index}")) for index in range(3)]
        seen += [[sum("model_name" in entry for entry in entries) for entries in files]]
        for settings in seen[:-1]:
            del settings["trace_file"]
        said.append(seen)
    triton, trivet = said
    assert trivet == triton


def test_calls_that_are_not_said_to_belong_to_a_trace(servers: Servers) -> None:
    assert DIFFERENCES["traces of calls"].transport == "models"
    traced = []
    for server in servers:
        first = len(list(server.file.parent.glob("trace.json.*")))
        client = httpclient.InferenceServerClient(server.endpoints.http)
        _setting(server, {"log_frequency": None, "trace_rate": None, "trace_count": None, "trace_level": None})
        client.infer("asking_apart", _input(httpclient, "INPUT0", X))
        entries = _wait_for(Path(f"{server.file}.{first}"))
        traced.append([entry["model_name"] for entry in entries if "model_name" in entry])
    assert traced == [["asking_apart"], ["asking_apart", "twice", "double", "double"]]


def test_a_count_of_zero_is_refused_with_a_reason(servers: Servers) -> None:
    assert DIFFERENCES["trace reason"].transport == "models"
    said = [_setting(server, {"trace_level": ["TIMESTAMPS"], "trace_count": "0"}) for server in servers]
    assert said[0] == "Attempting to set invalid trace setting :"
    assert said[1] == "Attempting to set invalid trace setting :trace count must not be zero"
