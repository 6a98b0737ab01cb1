"""``trivet serve`` as a process with the real protocols: readiness, draining over HTTP and gRPC, the exit status."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

WAITING_MODEL = """
import os
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.gate = os.path.join(args["model_repository"], "gate" + args["model_instance_name"][-1])

    def execute(self, requests):
        # Opening the pipe meets the test at its other end; reading it waits until the test closes it.
        with open(self.gate, "rb") as gate:
            gate.read()
        arrays = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array + 1)]) for array in arrays]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "waiting"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(WAITING_MODEL)
    (model / "config.pbtxt").write_text(
        'backend: "python"\n'
        'input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
        'output [ { name: "OUT" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
        "instance_group [ { count: 2 } ]\n"
    )
    for instance in range(2):
        os.mkfifo(model / f"gate{instance}")
    return tmp_path / "models"


class Process:
    """A server process whose log is read as far as a test needs."""

    def __init__(self, repository: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRIVET_")}
        options = ["--http-address=127.0.0.1", "--http-port=0", "--grpc-address=127.0.0.1", "--grpc-port=0"]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "trivet", "serve", str(repository), "--log-format=json", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=repository.parent,
        )
        self.addresses: dict[str, str] = {}
        self.log: list[str] = []

    def until(self, message: str) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            entry: dict[str, Any] = json.loads(line)
            self.log.append(entry["message"])
            if "listener" in entry:
                self.addresses[entry["listener"]] = entry["address"].rpartition("//")[2]
            if message in entry["message"]:
                return
        raise AssertionError(f"the log ended without {message!r}: {self.log}")

    def end(self) -> int:
        assert self.popen.stderr is not None
        self.log += [json.loads(line)["message"] for line in self.popen.stderr]
        return self.popen.wait(timeout=60)


@pytest.fixture
def process(repository: Path) -> Iterator[Process]:
    process = Process(repository)
    yield process
    process.popen.kill()
    process.popen.wait()
    assert process.popen.stderr is not None
    process.popen.stderr.close()


def get(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def infer(client: Any, module: Any) -> list[int]:
    array = np.array([1, 2], np.int32)
    tensor = module.InferInput("IN", list(array.shape), "INT32")
    tensor.set_data_from_numpy(array)
    result: list[int] = client.infer("waiting", [tensor]).as_numpy("OUT").tolist()
    return result


def test_a_rolling_restart_loses_no_request(process: Process, repository: Path) -> None:
    process.until("started in")
    http_address, grpc_address = process.addresses["http"], process.addresses["grpc"]
    assert get(http_address, "/v2/health/live") == 200
    assert get(http_address, "/v2/health/ready") == 200

    http_client = tritonclient.http.InferenceServerClient(http_address)
    grpc_client = tritonclient.grpc.InferenceServerClient(grpc_address)
    late = tritonclient.http.InferenceServerClient(http_address)
    with ThreadPoolExecutor(2) as pool:
        over_http = pool.submit(infer, http_client, tritonclient.http)
        over_grpc = pool.submit(infer, grpc_client, tritonclient.grpc)
        # Both pipes open when both instances have a request.
        with (repository / "waiting" / "gate0").open("wb"), (repository / "waiting" / "gate1").open("wb"):
            process.popen.send_signal(signal.SIGTERM)
            process.until("SIGTERM: finishing requests in flight")
            assert get(http_address, "/v2/health/live") == 200
            assert get(http_address, "/v2/health/ready") == 400
            with pytest.raises(InferenceServerException, match="stopping") as refused:
                infer(late, tritonclient.http)
            assert refused.value.status() == "503"
            with pytest.raises(InferenceServerException, match="stopping") as refused:
                infer(grpc_client, tritonclient.grpc)
            assert refused.value.status() == str(grpc.StatusCode.UNAVAILABLE)
        assert over_http.result(60) == [2, 3]
        assert over_grpc.result(60) == [2, 3]
    http_client.close()
    grpc_client.close()
    late.close()
    assert process.end() == 0
    assert process.log[-1] == "stopped"
