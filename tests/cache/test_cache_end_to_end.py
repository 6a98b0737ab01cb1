"""Responses from the cache over real sockets: HTTP, gRPC, ensembles, and two servers that share a Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from redis_servers import redis_servers
from tritonclient.utils import shared_memory
from trivet.errors import InvalidArgumentError
from trivet.testing import RunningServer, running_server

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    executions = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            type(self).executions += 1
            words = pb_utils.get_input_tensor_by_name(request, "WORDS").as_numpy()
            shouted = np.array([word.upper() for word in words.reshape(-1)], object).reshape(words.shape)
            count = np.full((len(words), 1), self.executions, np.int32)
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("SHOUTED", shouted), pb_utils.Tensor("COUNT", count)]))
        return responses
"""
TENSORS = """
max_batch_size: 8
input { name: "WORDS" data_type: TYPE_STRING dims: [ -1 ] }
output [{ name: "SHOUTED" data_type: TYPE_STRING dims: [ -1 ] },
        { name: "COUNT" data_type: TYPE_INT32 dims: [ 1 ] }]
"""
CACHED = "response_cache { enable: true }"
ENSEMBLE = f"""
platform: "ensemble" {CACHED} max_batch_size: 8
input {{ name: "IN" data_type: TYPE_STRING dims: [ -1 ] }}
output {{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }}
ensemble_scheduling {{ step {{ model_name: "plain" model_version: -1
  input_map {{ key: "WORDS" value: "IN" }} output_map {{ key: "COUNT" value: "OUT" }} }} }}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    write(path, "shout", 'backend: "python" dynamic_batching {}' + TENSORS + CACHED, MODEL)
    write(path, "plain", 'backend: "python"' + TENSORS, MODEL)
    write(path, "ensemble", ENSEMBLE)
    return path


def write(models: Path, name: str, config: str, code: str = "") -> None:
    (models / name / "1").mkdir(parents=True, exist_ok=True)
    (models / name / "config.pbtxt").write_text(config)
    if code:
        (models / name / "1" / "model.py").write_text(code)


@pytest.fixture
def server(models: Path) -> Iterator[RunningServer]:
    options = {"model_control_mode": "explicit", "load_model": ["*"]}
    with running_server(models, cache_config=["local,size=1000000"], **options) as running:
        yield running


def ask(client: Any, url: str, *words: str, model: str = "shout", name: str = "WORDS", **more: Any) -> Any:
    """The result of one request, by either form of tritonclient."""
    array = np.array([[word.encode() for word in words]], object)
    x = client.InferInput(name, array.shape, "BYTES")
    x.set_data_from_numpy(array)
    with client.InferenceServerClient(url) as connection:
        return connection.infer(model, [x], **more)


def hits(server: RunningServer, model: str = "shout") -> int:
    count: int = server.call(server.engine.statistics, model)[0].cache_hit.count
    return count


def test_a_response_is_shared_by_protocols_and_ways_to_write_a_request(server: RunningServer) -> None:
    first = ask(http_client, server.http_url, "grüße", "", request_id="a")
    x = http_client.InferInput("WORDS", [1, 2], "BYTES")
    x.set_data_from_numpy(np.array([["grüße", ""]], object), binary_data=False)
    with http_client.InferenceServerClient(server.http_url) as client:
        as_json = client.infer("shout", [x], request_id="b")
    over_grpc = ask(grpc_client, server.grpc_url, "grüße", "", request_id="c")
    for result in (first, as_json, over_grpc):
        assert result.as_numpy("SHOUTED").tolist() == [["grüße".encode().upper(), b""]]
        assert result.as_numpy("COUNT").tolist() == [[1]]
    assert as_json.get_response()["id"] == "b"
    assert over_grpc.get_response().id == "c"
    assert hits(server) == 2


def test_classes_are_made_of_a_cached_tensor(server: RunningServer) -> None:
    raw = [http_client.InferRequestedOutput("COUNT")]
    classes = [http_client.InferRequestedOutput("COUNT", class_count=1)]
    assert ask(http_client, server.http_url, "a", outputs=raw).as_numpy("COUNT").tolist() == [[1]]
    for _ in range(2):
        answer = ask(http_client, server.http_url, "a", outputs=classes).as_numpy("COUNT")
        assert answer.reshape(-1)[0].startswith(b"1:")
    assert hits(server) == 2


def test_an_ensemble_is_cached_as_a_whole_and_forgets_with_its_members(server: RunningServer, models: Path) -> None:
    def count() -> int:
        result = ask(http_client, server.http_url, "a", model="ensemble", name="IN")
        return int(result.as_numpy("OUT")[0, 0])

    assert [count(), count()] == [1, 1]
    assert hits(server, "ensemble") == 1
    write(models, "plain", 'backend: "python"' + TENSORS, MODEL.replace("executions = 0", "executions = 100"))
    with http_client.InferenceServerClient(server.http_url) as client:
        client.load_model("plain")
    assert [count(), count()] == [101, 101]


def test_rows_of_one_batch_are_remembered_one_by_one(server: RunningServer) -> None:
    words = [f"word {number}" for number in range(16)]

    def shouted(client: Any, url: str) -> list[bytes]:
        with ThreadPoolExecutor(len(words)) as threads:
            answers = threads.map(lambda word: ask(client, url, word).as_numpy("SHOUTED")[0, 0], words)
            return list(answers)

    expected = [word.upper().encode() for word in words]
    assert shouted(http_client, server.http_url) == expected
    assert shouted(grpc_client, server.grpc_url) == expected
    assert hits(server) == len(words)


def test_a_cached_output_goes_to_the_shared_memory_that_the_caller_names(server: RunningServer) -> None:
    asked = [http_client.InferRequestedOutput("COUNT")]
    assert ask(http_client, server.http_url, "shared", outputs=asked).as_numpy("COUNT").tolist() == [[1]]
    key = f"/trivet-test-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("answer", key, 4)
    try:
        for client, url in ((http_client, server.http_url), (grpc_client, server.grpc_url)):
            shared_memory.set_shared_memory_region(region, [np.zeros(1, np.int32)])
            there = client.InferRequestedOutput("COUNT")
            there.set_shared_memory("answer", 4)
            with client.InferenceServerClient(url) as connection:
                connection.register_system_shared_memory("answer", key, 4)
                ask(client, url, "shared", outputs=[there])
                assert shared_memory.get_contents_as_numpy(region, np.int32, [1]).tolist() == [1]
                connection.unregister_system_shared_memory("answer")
    finally:
        shared_memory.destroy_shared_memory_region(region)
    assert hits(server) == 2


def test_a_size_that_is_none_stops_the_server(models: Path) -> None:
    for settings in ({"cache_config": ["local,size=5"]}, {"response_cache_byte_size": 5}):
        with pytest.raises(InvalidArgumentError, match="size=5 is too small"), running_server(models, **settings):
            pass


def test_two_servers_share_a_redis(models: Path, tmp_path: Path) -> None:
    with redis_servers(tmp_path) as start:
        redis = start()
        settings = ["redis,host=127.0.0.1", f"redis,port={redis.port}"]
        with running_server(models, cache_config=settings) as one, running_server(models, cache_config=settings) as two:
            assert ask(http_client, one.http_url, "a").as_numpy("COUNT").tolist() == [[1]]
            assert one.engine.response_cache is not None
            one.call(one.engine.response_cache.settled)  # nobody else waits for an insertion
            assert ask(grpc_client, two.grpc_url, "a").as_numpy("SHOUTED").tolist() == [[b"A"]]
            assert (hits(one), hits(two)) == (0, 1)
            redis.stop()
            for server in (one, two):
                assert ask(http_client, server.http_url, "a").as_numpy("SHOUTED").tolist() == [[b"A"]]
