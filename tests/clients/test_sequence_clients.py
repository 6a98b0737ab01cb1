"""Sequences over real sockets: one by several protocols, iterative ones of a Python model, and how they end."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

SEEN = '''
import json
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with the instance, the row, and the sum of what the sequence gave it, which the server remembers."""

    def initialize(self, args):
        self.name = args["model_instance_name"]

    def execute(self, requests):
        responses = []
        for row, request in enumerate(requests):
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            total = pb_utils.get_input_tensor_by_name(request, "TOTAL").as_numpy() + x
            seen = {"instance": self.name, "row": row, "id": request.correlation_id(), "total": int(total.sum())}
            answer = np.array([[json.dumps(seen).encode()]], dtype=np.object_)
            responses.append(
                pb_utils.InferenceResponse([pb_utils.Tensor("SEEN", answer), pb_utils.Tensor("NEXT", total)])
            )
        return responses
'''
SEEN_CONFIG = """
backend: "python"
max_batch_size: 2
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "SEEN" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 2 } ]
sequence_batching {
  direct {}
  max_sequence_idle_microseconds: 60000000
  state [ { input_name: "TOTAL" output_name: "NEXT" data_type: TYPE_INT32 dims: [ 1 ] } ]
}
"""
COUNTDOWN = '''
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Sends a response for each step of a request until X steps are done, and notes how many shared each of them.

    It does nothing while there is a file "held" beside it.
    """

    def execute(self, requests):
        while Path(__file__).with_name("held").exists():
            time.sleep(0.001)
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            start = pb_utils.get_input_tensor_by_name(request, "START").as_numpy()
            left = pb_utils.get_input_tensor_by_name(request, "LEFT").as_numpy()
            left = (x if start.all() else left) - 1
            sender = request.get_response_sender()
            told = np.array([[int(left.sum()), len(requests), int(start.sum())]], dtype=np.int32)
            response = pb_utils.InferenceResponse([pb_utils.Tensor("TOLD", told), pb_utils.Tensor("NEXT", left)])
            if left.sum() > 0:
                sender.send(response)
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            else:
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
'''
COUNTDOWN_CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "TOLD" data_type: TYPE_INT32 dims: [ 3 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
model_transaction_policy { decoupled: true }
sequence_batching {
  iterative_sequence: true
  oldest { max_candidate_sequences: 8 }
  control_input [ { name: "START" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] } } ]
  state [ { input_name: "LEFT" output_name: "NEXT" data_type: TYPE_INT32 dims: [ 1 ] } ]
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = tmp_path_factory.mktemp("models")
    for name, code, config in (("seen", SEEN, SEEN_CONFIG), ("countdown", COUNTDOWN, COUNTDOWN_CONFIG)):
        version = Path(models, name, "1")
        version.mkdir(parents=True)
        (version / "model.py").write_text(code)
        (version.parent / "config.pbtxt").write_text(config)
    with running_server(models, model_control_mode="explicit", load_model=["*"]) as running:
        yield running


def tensor(module: Any, x: int) -> Any:
    return module.InferInput("X", [1, 1], "INT32").set_data_from_numpy(np.array([[x]], np.int32))


class Streamed:
    """A gRPC stream and what came on it."""

    def __init__(self, server: RunningServer) -> None:
        self.client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def __enter__(self) -> Streamed:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()

    def send(self, model: str, x: int, **place: Any) -> None:
        self.client.async_stream_infer(model, [tensor(tritonclient.grpc, x)], **place)

    def answer(self) -> Any:
        result, error = self.answers.get(timeout=60)
        if error is not None:
            raise error
        return result


@pytest.mark.parametrize("id", [17, "seventeen"])
def test_a_sequence_keeps_its_slot_and_its_state_across_http_grpc_and_a_stream(
    server: RunningServer, id: int | str
) -> None:
    def seen(result: Any) -> Any:
        assert result.as_numpy("NEXT") is None
        return json.loads(result.as_numpy("SEEN").item())

    with (
        tritonclient.http.InferenceServerClient(server.http_url) as http,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as grpc,
        Streamed(server) as stream,
    ):
        # Others take the slots around it.
        for other in (1, 2):
            grpc.infer("seen", [tensor(tritonclient.grpc, 1)], sequence_id=other, sequence_start=True)
        steps = [
            seen(http.infer("seen", [tensor(tritonclient.http, 1)], sequence_id=id, sequence_start=True)),
            seen(grpc.infer("seen", [tensor(tritonclient.grpc, 10)], sequence_id=id)),
        ]
        stream.send("seen", 100, sequence_id=id)
        steps.append(seen(stream.answer()))
        steps.append(seen(http.infer("seen", [tensor(tritonclient.http, 1000)], sequence_id=id, sequence_end=True)))
        for other in (1, 2):
            grpc.infer("seen", [tensor(tritonclient.grpc, 1)], sequence_id=other, sequence_end=True)
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            grpc.infer("seen", [tensor(tritonclient.grpc, 1)], sequence_id=id)
    assert [step["total"] for step in steps] == [1, 11, 111, 1111]
    assert {(step["instance"], step["row"], step["id"]) for step in steps} == {(steps[0]["instance"], 1, id)}


def test_the_server_says_that_it_has_sequences(server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        extensions = list(client.get_server_metadata().extensions)
    assert extensions.count("sequence") == 1


def test_requests_of_an_iterative_model_are_batched_step_by_step(server: RunningServer) -> None:
    """They come while the first is under way, join it at its next step, and leave when they are done."""
    steps = {"a": 40, "b": 25, "c": 33}
    told: dict[str, list[list[int]]] = {id: [] for id in steps}
    held = Path(server.engine.options.model_repositories[0], "countdown", "1", "held")
    held.touch()
    with Streamed(server) as stream:
        for id, count in steps.items():
            stream.send("countdown", count, request_id=id)
        model = server.engine.model("countdown")
        while server.call(lambda: len(model.in_flight)) < len(steps):
            pass  # they are on their way
        held.unlink()
        for _ in range(sum(steps.values())):
            result = stream.answer()
            told[result.get_response().id].append(result.as_numpy("TOLD").ravel().tolist())
    for id, count in steps.items():
        assert [left for left, _, _ in told[id]] == list(range(count))[::-1]
        assert [start for _, _, start in told[id]] == [1] + [0] * (count - 1)
    assert max(together for answers in told.values() for _, together, _ in answers) == len(steps)


def test_a_client_that_goes_away_ends_its_iterative_sequence(server: RunningServer) -> None:
    model = server.engine.model("countdown")
    with Streamed(server) as stream:
        stream.send("countdown", 1_000_000)
        stream.answer()
        stream.client.stop_stream(cancel_requests=True)
    server.call(model.drained)
    assert server.call(lambda: model.scheduler.queued) == 0


def test_a_model_unloads_while_sequences_live_and_the_rest_of_the_backlog_is_served(server: RunningServer) -> None:
    with Streamed(server) as stream, tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        for id in range(1, 7):  # four slots, held by sequences that go on: two wait in the backlog
            stream.send("seen", id, sequence_id=id, sequence_start=True)
        held = [json.loads(stream.answer().as_numpy("SEEN").item())["total"] for _ in range(4)]
        client.unload_model("seen")
        waited = [json.loads(stream.answer().as_numpy("SEEN").item())["total"] for _ in range(2)]
        assert sorted(held) == [1, 2, 3, 4]
        assert sorted(waited) == [5, 6]
        client.load_model("seen")
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            client.infer("seen", [tensor(tritonclient.grpc, 1)], sequence_id=1)


def test_cancelling_a_call_that_waits_for_a_slot_ends_its_sequence(server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        for id in range(11, 15):
            client.infer("seen", [tensor(tritonclient.grpc, id)], sequence_id=id, sequence_start=True)
        errors: queue.Queue[Any] = queue.Queue()
        call = client.async_infer(
            "seen",
            [tensor(tritonclient.grpc, 1)],
            callback=lambda result, error: errors.put(error),
            sequence_id=15,
            sequence_start=True,
        )
        model = server.engine.model("seen")
        while not server.call(lambda: model.scheduler.queued):
            pass  # it is on its way
        call.cancel()
        assert "CANCELLED" in str(errors.get(timeout=60))
        server.call(model.drained)
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            client.infer("seen", [tensor(tritonclient.grpc, 1)], sequence_id=15)
        for id in range(11, 15):
            client.infer("seen", [tensor(tritonclient.grpc, 0)], sequence_id=id, sequence_end=True)
