"""The same Python models use ``pb_utils`` in the same ways in a real Triton and in Trivet, and find the same.

The model ``caller`` runs the functions of ``models_bls/caller/1/cases.py`` and answers with what came of them. What is
not among them takes the real server down, every time or now and then: whatever its own process refuses a model (a load
that fails, a metric's operation or label, a version that is no number), and metrics of a family that was freed.
"""

from __future__ import annotations

import ast
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tritonclient.grpc as triton

from .differences import DIFFERENCES
from .messages import comparable
from .pairs import Pair, running_pair

MODELS = Path(__file__).parent / "models_bls"
CASES = [
    node.name
    for node in ast.parse((MODELS / "caller" / "1" / "cases.py").read_text()).body
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.args.args
]
SHOWN = {
    "decoupled_again": "responses again",
    "decoupled_error": "error in a stream",
    "exec_error_code": "code of a called model",
}
"""Cases that find something else, and the difference that this is."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(MODELS, tmp_path_factory.mktemp("bls")) as both:
        yield both


def post(address: str, model: str, document: dict[str, Any]) -> dict[str, Any]:
    request = Request(f"http://{address}/v2/models/{model}/infer", json.dumps(document).encode())
    try:
        with urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
    except HTTPError as error:
        answer = json.load(error)
    return answer


def find(address: str, case: str) -> list[str]:
    answer = post(address, "caller", {"inputs": [{"name": "CASE", "datatype": "BYTES", "shape": [1], "data": [case]}]})
    return [comparable(text) for text in answer["outputs"][0]["data"]]


@pytest.mark.differential
@pytest.mark.parametrize("case", CASES)
def test_same_finding(case: str, pair: Pair) -> None:
    theirs, ours = find(pair.triton.http, case), find(pair.trivet.http, case)
    if case in SHOWN:
        assert theirs != ours, f"the findings agree by now: take the difference '{SHOWN[case]}' off"
    else:
        assert ours == theirs


def test_the_differences_are_in_the_table() -> None:
    assert {DIFFERENCES[name].transport for name in SHOWN.values()} == {"models"}
    assert set(SHOWN) <= set(CASES)


class TestRescheduling:
    """Requests that a model wants to execute again."""

    @staticmethod
    def steps(n: int) -> dict[str, Any]:
        return {"id": "s", "inputs": [{"name": "N", "datatype": "INT32", "shape": [1], "data": [n]}]}

    @pytest.mark.differential
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_executes_as_many_steps_as_it_wants(self, steps: int, pair: Pair) -> None:
        ours = post(pair.trivet.http, "reschedule", self.steps(steps))
        assert ours == post(pair.triton.http, "reschedule", self.steps(steps))
        assert ours["outputs"][0]["data"] == [steps]

    @pytest.mark.differential
    def test_an_answer_and_another_step_exclude_each_other(self, pair: Pair) -> None:
        theirs, ours = (post(server.http, "reschedule_and_answer", self.steps(2))["error"] for server in pair)
        # The class of the response has another module's name.
        assert ours.partition(", found type")[0] == theirs.partition(", found type")[0]

    @pytest.mark.differential
    @pytest.mark.parametrize("steps", [1, 4])
    def test_a_stream_of_one_response_per_step(self, steps: int, pair: Pair) -> None:
        theirs, ours = (self.stream(server.grpc, steps) for server in pair)
        assert ours == theirs == list(range(1, steps + 1))

    @pytest.mark.differential
    def test_a_model_that_is_not_configured_for_it(self, pair: Pair) -> None:
        # The real one never answers.
        error = post(pair.trivet.http, "reschedule_plain", self.steps(2))["error"]
        assert "while the model is not configured to handle such a flag" in error

    @staticmethod
    def stream(address: str, steps: int) -> list[int]:
        """The responses of a stream of one request, over tritonclient."""
        received: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
        with triton.InferenceServerClient(address) as client:
            client.start_stream(lambda result, error: received.put((result, error)))
            tensor = triton.InferInput("N", [1], "INT32")
            tensor.set_data_from_numpy(np.array([steps], np.int32))
            client.async_stream_infer("reschedule_stream", [tensor], request_id="s")
            found: list[int] = []
            while len(found) < steps:
                result, error = received.get(timeout=60)
                assert error is None
                found.append(int(result.as_numpy("STEPS")[0]))
            client.stop_stream()
        return found
