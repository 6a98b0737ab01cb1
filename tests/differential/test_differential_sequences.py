"""Sequences as a model of the Python backend sees them: batches, rows, controls; and what clients are told.

Of implicit state, Triton's Python backend shows a model what a sequence begins with, and takes none back; the rest is
tested without it.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair

pytestmark = pytest.mark.differential

MODEL = '''
import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with what it was given of the whole batch; x: how many ms it takes, negative for a failure.

    A file beside it tells that it has begun what takes time.
    """

    def execute(self, requests):
        rows, responses = [], []
        for request in requests:
            given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            x = given.pop("X")
            row = {name: [str(a.dtype), list(a.shape), str(a.ravel().tolist())] for name, a in given.items()}
            # Of a row that fills a slot, the data mean nothing.
            row["X"] = [list(x.shape), request.requested_output_names() and x.ravel().tolist()]
            row["request"] = [request.request_id(), request.correlation_id(), request.flags()]
            rows.append(row)
        times = [row["X"][1][0] for row in rows if row["X"][1]]
        if max([0, *times]):
            Path(__file__).with_name("begun").touch()
            time.sleep(max(times) / 1000)
        for row in rows:
            row["X"][1] = row["X"][1] and row["X"][1][0]
            row["X"][1] = row["X"][1] or None
        text = np.array([json.dumps(rows).encode()], dtype=np.object_)
        batched = len(rows[0]["X"][0]) > 1
        for row in rows:
            if (row["X"][1] or 0) < 0:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("no negative numbers")))
            else:
                output = pb_utils.Tensor("Y", text.reshape(1, 1) if batched else text)
                responses.append(pb_utils.InferenceResponse([output]))
        return responses
'''
CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "X" data_type: TYPE_INT32 dims: [ {dims} ] }} ]
output [ {{ name: "Y" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
sequence_batching {{ {batching} {controls} }}
"""
CONTROLS = """
control_input [
  {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START {start} }} }},
  {{ name: "END" control {{ kind: CONTROL_SEQUENCE_END {end} }} }},
  {{ name: "READY" control {{ kind: CONTROL_SEQUENCE_READY {ready} }} }},
  {{ name: "CORRID" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {id} }} }}
]
"""
FP32, INT32, BOOL = "fp32_false_true: [ 0, 1 ]", "int32_false_true: [ -3, 5 ]", "bool_false_true: [ false, true ]"


def config(batching: str, *controls: str, max_batch_size: int = 4, dims: int = 1, instances: int = 1) -> str:
    start, end, ready, id = controls or (FP32, INT32, BOOL, "TYPE_UINT64")
    return CONFIG.format(
        batching=batching,
        controls=CONTROLS.format(start=start, end=end, ready=ready, id=id),
        max_batch_size=max_batch_size,
        dims=dims,
        instances=instances,
    )


IDLE = "max_sequence_idle_microseconds: 1500000"
LONG = "max_sequence_idle_microseconds: 60000000"
MODELS = {
    "direct": config(f"direct {{}} {LONG}"),
    "idle": config(f"direct {{}} {IDLE}"),
    "delayed": config(
        f"direct {{ max_queue_delay_microseconds: 500000 minimum_slot_utilization: 0.6 }} {LONG}",
        *(BOOL, FP32, INT32, "TYPE_INT32"),
    ),
    "shapes": config(f"direct {{ max_queue_delay_microseconds: 300000 minimum_slot_utilization: 1 }} {LONG}", dims=-1),
    "two": config(f"direct {{}} {LONG}", instances=2, max_batch_size=2),
    "plain": config(LONG, INT32, BOOL, FP32, "TYPE_UINT32"),
    "oldest": config(f"oldest {{ max_candidate_sequences: 3 }} {LONG}", BOOL, BOOL, BOOL, "TYPE_INT64"),
    "preferred": config(
        "oldest { max_candidate_sequences: 8 preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 400000"
        f" preserve_ordering: true }} {LONG}",
    ),
    "waiting": config(f"oldest {{ max_candidate_sequences: 1 }} {IDLE}"),
    "text": config(f"oldest {{}} {LONG}", FP32, FP32, FP32, "TYPE_STRING"),
    "unbatched": config(LONG, max_batch_size=0),
    "stateful": config(
        LONG
        + """
        state [
          {
            input_name: "ZERO" output_name: "A" data_type: TYPE_FP32 dims: [ 2, 1 ]
            initial_state { name: "i" data_type: TYPE_FP32 dims: [ 2, 1 ] zero_data: true }
          },
          {
            input_name: "FILE" output_name: "B" data_type: TYPE_INT32 dims: [ 3 ]
            initial_state { name: "i" data_type: TYPE_INT32 dims: [ 3 ] data_file: "numbers" }
          },
          {
            input_name: "EMPTY" output_name: "C" data_type: TYPE_STRING dims: [ 2 ]
            initial_state { name: "i" data_type: TYPE_STRING dims: [ 2 ] zero_data: true }
          },
          {
            input_name: "VARIABLE" output_name: "D" data_type: TYPE_INT64 dims: [ -1 ]
            initial_state { name: "i" data_type: TYPE_INT64 dims: [ 1 ] zero_data: true }
          }
        ]
        """
    ),
    "bare": CONFIG.format(max_batch_size=4, dims=1, instances=1, batching=LONG, controls=""),
    "iterative": config(f"iterative_sequence: true {LONG}"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = tmp_path_factory.mktemp("repository")
    for name, text in MODELS.items():
        folder = models / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL)
        (folder.parent / "config.pbtxt").write_text(text)
        if "numbers" in text:
            (folder.parent / "initial_state").mkdir()
            (folder.parent / "initial_state" / "numbers").write_bytes(np.array([7, 8, 9, 10], np.int32).tobytes())
    # The real one waits when it stops until the last sequence is idle for long enough.
    with running_pair(models, Path(tmp_path_factory.mktemp("servers")), options=["--exit-timeout-secs=1"]) as pair:
        yield pair


class Stream:
    """One client of one server, that sends without waiting for answers."""

    def __init__(self, server: Endpoints, model: str) -> None:
        self.model = model
        self.begun = server.models / model / "1" / "begun"
        self.client = triton.InferenceServerClient(server.grpc)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(
        self, id: int | str, *values: int, start: bool = False, end: bool = False, timeout: int | None = None
    ) -> None:
        """A request whose X is ``values``, 0 if there are none."""
        shape = [len(values) or 1] if self.model == "unbatched" else [1, len(values) or 1]
        x = triton.InferInput("X", shape, "INT32").set_data_from_numpy(np.array(values or [0], np.int32).reshape(shape))
        self.client.async_stream_infer(
            self.model, [x], sequence_id=id, sequence_start=start, sequence_end=end, timeout=timeout
        )

    def answer(self) -> Any:
        """What the model saw of the batch, or the error."""
        result, error = self.answers.get(timeout=20)
        return str(error) if error is not None else json.loads(result.as_numpy("Y").item())

    def ask(self, *place: Any, **options: Any) -> Any:
        self.send(*place, **options)
        return self.answer()

    def begin(self, id: int, ms: int, **options: Any) -> None:
        """Send a request that takes ``ms``, and wait until the model has it: what is sent then is not in its batch."""
        self.begun.unlink(missing_ok=True)
        self.send(id, ms, **options)
        for _ in range(4000):
            if self.begun.exists():
                return
            time.sleep(0.005)  # nothing tells when another process writes a file
        raise TimeoutError("the model has not begun within 20 s")

    def together(self, *requests: tuple[Any, ...]) -> list[Any]:
        """Answers to requests that are sent without a pause: the arguments of :meth:`send`, its flags as one text."""
        for id, *values, flags in requests:
            self.send(id, *values, start="start" in flags, end="end" in flags)
        return [self.answer() for _ in requests]


Case = Callable[[Stream], Any]


def both(servers: Pair, model: str, case: Case) -> tuple[Any, Any]:
    seen = []
    for server in servers:
        stream = Stream(server, model)
        try:
            seen.append(case(stream))
        finally:
            stream.client.stop_stream()
            stream.client.close()
    return seen[0], seen[1]


def a_sequence(s: Stream, id: int | str = 7) -> Any:
    return [s.ask(id, start=True), s.ask(id), s.ask(id, end=True), s.ask(id)]


def rows(s: Stream) -> Any:
    """Three sequences in three rows; then only the third, the second and the first."""
    seen = [s.ask(id, start=True) for id in (11, 12, 13)]
    seen += [s.ask(13), s.ask(12, end=True), s.ask(13, end=True), s.ask(11, end=True)]
    return seen


def a_row_for_the_next(s: Stream) -> Any:
    """Five sequences for four rows: the fifth gets the row of the second, which ends."""
    seen = [s.ask(id, start=True) for id in (1, 2, 3, 4)]
    s.send(5, start=True)
    seen += [s.ask(2, end=True), s.answer(), s.ask(5, end=True)]
    return [*seen, *(s.ask(id, end=True) for id in (1, 3, 4))]


def piled_up(s: Stream) -> Any:
    """While one request is executed the next of all sequences come; two of one sequence stay two batches."""
    seen = [s.ask(id, start=True) for id in (1, 2, 3)]
    s.begin(1, 600)
    return [*seen, *s.together((2, ""), (2, "end"), (3, "end"), (1, "end")), s.answer()]


def enough(s: Stream) -> Any:
    return [s.together((1, "start"), (2, "start"), (3, "start")), s.together((1, "end"), (2, "end"), (3, "end"))]


def enough_for_two(s: Stream) -> Any:
    return [s.together((1, "start"), (2, "start")), s.together((1, "end"), (2, "end"))]


def late(s: Stream) -> Any:
    return [s.ask(1, start=True), s.ask(1, end=True)]


def of_two_shapes(s: Stream) -> Any:
    seen = [s.together((1, 0, 0, "start"), (2, 0, "start"), (3, 0, 0, "start"), (4, 0, "start"))]
    seen += [s.ask(id, end=True) for id in (1, 2, 3, 4)]
    return seen


def started_again(s: Stream) -> Any:
    return [s.ask(5, start=True), s.ask(5, start=True), s.ask(5, end=True), s.ask(5)]


def failing(s: Stream) -> Any:
    return [s.ask(5, start=True), s.ask(5, -1), s.ask(5), s.ask(5, end=True)]


def alone(s: Stream) -> Any:
    return [s.ask(5, start=True, end=True), s.ask(5), s.ask(2**32 + 7, start=True, end=True)]


def refused(s: Stream) -> Any:
    return [s.ask(0, start=True), s.ask(9), s.ask(9, end=True), s.ask("neun")]


def ended_and_begun(s: Stream) -> Any:
    """The next sequence of the same ID begins while the first still has requests."""
    s.begin(6, 600, start=True)
    return [s.together((6, "end"), (6, "start"), (6, "end")), s.answer()]


def of_strings(s: Stream) -> Any:
    return [s.ask("", start=True), s.ask("a"), s.ask("a" * 128), s.ask("a" * 129)]


def in_the_backlog(s: Stream) -> Any:
    seen = [s.ask(1, start=True)]
    s.send(2, start=True)
    s.send(2, end=True)
    s.send(3, start=True, end=True)
    return [*seen, s.ask(1, end=True), s.answer(), s.answer(), s.answer()]


def silent_holder(s: Stream) -> Any:
    """The slot that a silent client holds is free in the end, and its sequence is over."""
    return [s.ask(1, start=True), s.ask(2, start=True), s.ask(1)]


def too_long_in_the_backlog(s: Stream) -> Any:
    seen = [s.ask(1, start=True)]
    return [*seen, s.ask(2, start=True, timeout=200_000), s.ask(2), s.ask(1, end=True)]


def idle(s: Stream) -> Any:
    seen = [s.ask(1, start=True)]
    time.sleep(3)  # nothing tells when the real one gives a sequence up
    return [*seen, s.ask(1)]


def no_ids(s: Stream) -> Any:
    """The real one frees the slot of a request only some time after its answer, so that rows may differ."""
    first = s.ask(0)
    time.sleep(0.5)
    return [first, s.ask(77), s.ask(77, start=True)]


@pytest.mark.parametrize(
    ("model", "case"),
    [
        ("direct", a_sequence),
        ("direct", rows),
        ("direct", a_row_for_the_next),
        ("direct", piled_up),
        ("direct", started_again),
        ("direct", failing),
        ("direct", alone),
        ("direct", refused),
        ("direct", ended_and_begun),
        ("delayed", enough),
        ("delayed", late),
        ("shapes", of_two_shapes),
        ("two", rows),
        ("plain", a_sequence),
        ("plain", rows),
        ("plain", alone),
        ("oldest", a_sequence),
        ("oldest", started_again),
        ("oldest", failing),
        ("oldest", alone),
        ("oldest", refused),
        ("preferred", enough_for_two),
        ("preferred", late),
        ("waiting", in_the_backlog),
        ("waiting", silent_holder),
        ("waiting", too_long_in_the_backlog),
        ("idle", idle),
        ("unbatched", a_sequence),
        ("unbatched", alone),
        ("iterative", no_ids),
        ("text", of_strings),
        ("stateful", alone),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_both_show_the_model_the_same_batches_and_clients_the_same_errors(
    servers: Pair, model: str, case: Case
) -> None:
    real, ours = both(servers, model, case)
    assert ours == real


def test_a_request_of_a_sequence_is_one_entry(servers: Pair) -> None:
    def refusal(address: str) -> str:
        x = triton.InferInput("X", [2, 1], "INT32").set_data_from_numpy(np.zeros((2, 1), np.int32))
        with triton.InferenceServerClient(address) as client, pytest.raises(InferenceServerException) as raised:
            client.infer("direct", [x], sequence_id=1, sequence_start=True)
        return str(raised.value)

    assert refusal(servers.trivet.grpc) == refusal(servers.triton.grpc)


def test_rows_without_a_request_count_as_executed_and_not_as_inferences(servers: Pair) -> None:
    def counted(server: Endpoints) -> Any:
        stream = Stream(server, "two")
        for id in (1, 2, 3, 4):
            stream.ask(id, start=True)
        with triton.InferenceServerClient(server.grpc) as client:
            before = settled(client, 4)
            for id in (1, 2, 3, 4):
                stream.ask(id, end=True)
            after = settled(client, before[0] + 4)
        stream.client.stop_stream()
        stream.client.close()
        return [new - old for old, new in zip(before, after, strict=True)]

    triton_counts, trivet_counts = counted(servers.triton), counted(servers.trivet)
    assert trivet_counts == triton_counts


def settled(client: Any, inferences: int) -> list[int]:
    """The counters of model ``two``, which the real one writes some time after an answer."""
    for _ in range(100):
        counts = statistics(client, "two")
        if counts[0] >= inferences:
            break
        time.sleep(0.05)
    return counts


def statistics(client: Any, model: str) -> list[int]:
    [found] = client.get_inference_statistics(model).model_stats
    sizes = {batch.batch_size: batch.compute_infer.count for batch in found.batch_stats}
    return [found.inference_count, found.execution_count, sizes.get(1, 0), sizes.get(2, 0)]


def test_a_text_as_correlation_id_reaches_a_model_that_asks_for_it(servers: Pair) -> None:
    assert "string corrid" in DIFFERENCES
    real, ours = both(servers, "text", lambda s: s.ask("abc", start=True, end=True))
    assert real == "unexpected number of string elements 2 for inference input 'CORRID', expecting 1"
    [row] = ours
    assert row["CORRID"] == ["object", [1, 1], "[b'abc']"]


def test_a_sequence_is_not_idle_while_its_request_is_executed(servers: Pair) -> None:
    assert "idle time" in DIFFERENCES
    real, ours = both(servers, "idle", lambda s: [s.ask(1, 2500, start=True), s.ask(1, end=True)])
    assert ours[0] == real[0]
    assert "must specify the START flag" in real[1]
    assert ours[1][0]["request"] == ["", 1, 2]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sequence_id": 0, "sequence_start": True},
        {"sequence_id": "", "sequence_start": True},
        {"sequence_id": 41},
        {"sequence_id": "einundvierzig"},
        {"sequence_id": 42, "sequence_start": True, "sequence_end": True},
        {"sequence_id": "x" * 129, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 2**64 - 1, "sequence_start": True, "sequence_end": True},
        {"sequence_id": -1, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 1.5, "sequence_start": True, "sequence_end": True},
        {"sequence_id": True, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 43, "sequence_start": 1},
        {"sequence_id": 43, "sequence_start": "true"},
    ],
    ids=str,
)
def test_requests_over_http_are_told_the_same(servers: Pair, parameters: dict[str, Any]) -> None:
    def by_http(address: str) -> tuple[int, Any]:
        x = {"name": "X", "datatype": "INT32", "shape": [1, 1], "data": [0]}
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", "/v2/models/bare/infer", json.dumps({"inputs": [x], "parameters": parameters}))
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        return response.status, body.get("error") or json.loads(body["outputs"][0]["data"][0])

    assert by_http(servers.trivet.http) == by_http(servers.triton.http)
