"""Which requests share an execution, in which order, and what is refused: the same in a real Triton and in Trivet.

The first request of most scenarios holds the model's instance until all others have come, one after the other. The
model answers every request with the number of its execution.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair
from .waiting import pending, wait_until

pytestmark = pytest.mark.differential

MODEL = '''
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Notes what it executes in a file beside it; what is to be held stays until there is the file "open"."""

    def initialize(self, args):
        self.executions = 0

    def execute(self, requests):
        self.executions += 1
        with Path(__file__).with_name("executed").open("a") as file:
            file.write("".join(f"{request.request_id()}\\n" for request in requests))
        given = [pb_utils.get_input_tensor_by_name(request, "hold").as_numpy() for request in requests]
        if any(each.any() for each in given):
            while not Path(__file__).with_name("open").exists():
                time.sleep(0.001)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("execution", np.full((*each.shape[:-1], 1), self.executions, np.int32))]
            )
            for each in given
        ]
'''
CONFIG = """
backend: "python"
input { name: "hold" data_type: TYPE_INT32 dims: [ -1 ] }
input { name: "other" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
output { name: "execution" data_type: TYPE_INT32 dims: [ 1 ] }
"""


class Ask(NamedTuple):
    """One request of a scenario, which comes when those before it are executed, refused or in the queue."""

    name: str
    rows: int = 1
    size: int = 1
    hold: bool = False
    after_s: float = 0
    """How much later it comes: that long at least, for timeouts that are to be over."""
    after_answers: bool = False
    """It comes when those before it are answered."""
    other: bool = False
    parameters: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A configuration, and the requests that it is asked."""

    batching: str
    asks: Sequence[Ask]
    max_batch_size: int = 4
    instances: int = 1
    hold_s: float = 0
    """How long the first is held when all have come, at least."""
    when: bool = False
    """What is compared is whether each answer came before the first request's execution was over."""
    overtakes: bool = False
    """And it did: the others are waited for."""
    difference: str = ""
    """Where Trivet deliberately does otherwise, the name of that in the table of differences."""
    trivet: Mapping[str, Any] = field(default_factory=dict)
    """What Trivet does then."""


def asks(names: str, **fields: Any) -> list[Ask]:
    return [Ask(name, **fields) for name in names]


HOLD = Ask("hold", hold=True)
LEVELS = "priority_levels: 3 default_priority_level: 2"


def priority(name: str, level: int, **fields: Any) -> Ask:
    return Ask(name, parameters={"priority": level}, **fields)


def timeout(name: str, us: int, **fields: Any) -> Ask:
    return Ask(name, parameters={"timeout": us}, **fields)


def rejecting(us: int, more: str = "") -> str:
    return f"default_queue_policy {{ timeout_action: REJECT default_timeout_microseconds: {us} {more} }}"


SCENARIOS = {
    "fills-up": Scenario("", [HOLD, *asks("abcdef")]),
    "preferred": Scenario("preferred_batch_size: [ 2 ]", [HOLD, *asks("abcde")]),
    "preferred-not-met": Scenario("preferred_batch_size: [ 4 ]", [HOLD, *asks("abcdef")], max_batch_size=8),
    "rows": Scenario("", [HOLD, *asks("abc", rows=2), *asks("d", rows=1), *asks("e", rows=4)]),
    "no-batching": Scenario("max_queue_delay_microseconds: 100000", [HOLD, *asks("abc")], max_batch_size=0),
    "one-row": Scenario("", [HOLD, *asks("abc")], max_batch_size=1),
    "delay": Scenario("max_queue_delay_microseconds: 2000000", asks("abc")),
    "delay-ends": Scenario("max_queue_delay_microseconds: 1000000", [*asks("ab"), *asks("cd", after_answers=True)]),
    "delay-full": Scenario("max_queue_delay_microseconds: 60000000", asks("abcdefgh")),
    "delay-preferred": Scenario("preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 60000000", asks("abcd")),
    "delay-overshoots": Scenario(
        "preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 2000000", [*asks("a", rows=1), *asks("b", rows=2)]
    ),
    "optional": Scenario("", [HOLD, *asks("ab"), *asks("cd", other=True)]),
    "priorities": Scenario(
        LEVELS,
        [HOLD, priority("low", 3), Ask("default"), priority("high", 1), priority("beyond", 9), priority("zero", 0)],
        max_batch_size=1,
    ),
    "priorities-share": Scenario(
        LEVELS, [HOLD, priority("x", 3), priority("y", 3), priority("a", 1), priority("b", 2), priority("c", 2)]
    ),
    "no-levels": Scenario("", [HOLD, priority("a", 3), priority("b", 1)], max_batch_size=1),
    "queue-full": Scenario("default_queue_policy { max_queue_size: 2 }", [HOLD, *asks("abcd")]),
    "queue-full-by-level": Scenario(
        f"{LEVELS} default_queue_policy {{ max_queue_size: 1 }}"
        " priority_queue_policy { key: 1 value { max_queue_size: 2 } }",
        [HOLD, *(priority(f"{level}{name}", level) for level in (1, 2, 3) for name in "abc")],
    ),
    "reject": Scenario(rejecting(300_000), [HOLD, *asks("ab")], hold_s=0.4),
    "reject-late-enough": Scenario(rejecting(60_000_000), [HOLD, *asks("ab")], hold_s=0.4),
    "override": Scenario(
        rejecting(30_000_000, "allow_timeout_override: true"),
        [HOLD, timeout("short", 200_000), Ask("default"), timeout("long", 60_000_000)],
        hold_s=0.3,
    ),
    "override-not-allowed": Scenario(rejecting(60_000_000), [HOLD, timeout("short", 200_000)], hold_s=0.3),
    "override-of-nothing": Scenario(
        "default_queue_policy { allow_timeout_override: true }", [HOLD, timeout("short", 200_000)], hold_s=0.3
    ),
    "delayed": Scenario(
        "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1000000 }",
        [HOLD, *asks("ab"), Ask("c", after_s=1.2)],
        max_batch_size=1,
    ),
    "ordered": Scenario(
        "preserve_ordering: true",
        [HOLD, *asks("abc")],
        max_batch_size=1,
        instances=2,
        when=True,
    ),
    "not-ordered": Scenario("", [HOLD, *asks("abc")], max_batch_size=1, instances=2, when=True, overtakes=True),
    "shapes": Scenario(
        "",
        [HOLD, *asks("a", size=1), *asks("b", size=2), *asks("c", size=1), *asks("d", size=2)],
        difference="shapes out of order",
        trivet={"hold": 0, "a": 1, "b": 2, "c": 1, "d": 2},
    ),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("batching")
    for name, scenario in SCENARIOS.items():
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(MODEL)
        instances = f"instance_group {{ count: {scenario.instances} kind: KIND_CPU }}"
        (version.parent / "config.pbtxt").write_text(
            f"{CONFIG} max_batch_size: {scenario.max_batch_size} {instances} dynamic_batching {{ {scenario.batching} }}"
        )
    with running_pair(folder / "models", folder) as both:
        yield both


@pytest.mark.parametrize("name", SCENARIOS)
def test_requests_share_executions_as_in_triton(pair: Pair, name: str) -> None:
    scenario = SCENARIOS[name]
    with ThreadPoolExecutor(2) as pool:
        triton, trivet = pool.map(lambda server: play(server, name), pair)
    if scenario.difference:
        assert scenario.difference in DIFFERENCES
        assert trivet == scenario.trivet
        assert triton != trivet
    else:
        assert trivet == triton
        assert len(trivet) == len(scenario.asks)


@pytest.mark.parametrize("name", ["queue-full", "reject"])
def test_what_is_refused_has_tritons_status_over_grpc(pair: Pair, name: str) -> None:
    triton, trivet = (play_grpc(server, name) for server in pair)
    assert trivet == triton
    assert any("UNAVAILABLE" in str(outcome) for outcome in trivet.values())


def play(server: Endpoints, name: str) -> dict[str, Any]:
    """Ask everything over HTTP; gives each request's execution, counted from 0, or its status and error."""
    scenario = SCENARIOS[name]

    def ask_over_http(ask: Ask, opened: Event) -> Any:
        connection = HTTPConnection(server.http, timeout=120)
        connection.request("POST", f"/v2/models/{name}/infer", json.dumps(_document(scenario, ask)))
        response = connection.getresponse()
        document = json.loads(response.read())
        connection.close()
        if scenario.when:
            return response.status, not opened.is_set()
        return document["outputs"][0]["data"][0] if response.status == 200 else (response.status, document["error"])

    outcomes = _play(server, name, ask_over_http)
    return outcomes if scenario.when else _from_zero(outcomes)


def play_grpc(server: Endpoints, name: str) -> dict[str, Any]:
    """The same over gRPC."""
    with triton_grpc.InferenceServerClient(server.grpc) as client:

        def ask_over_grpc(ask: Ask, opened: Event) -> Any:
            inputs = []
            for given in _document(SCENARIOS[name], ask)["inputs"]:
                tensor = triton_grpc.InferInput(given["name"], given["shape"], "INT32")
                tensor.set_data_from_numpy(np.full(given["shape"], given["data"][0], np.int32))
                inputs.append(tensor)
            try:
                result = client.infer(name, inputs, request_id=ask.name, **ask.parameters)
            except InferenceServerException as error:
                return str(error.status()), error.message()
            return int(result.as_numpy("execution").ravel()[0])

        return _from_zero(_play(server, name, ask_over_grpc))


def _play(server: Endpoints, name: str, run: Callable[[Ask, Event], Any]) -> dict[str, Any]:
    """What ``run`` gave for each request. It is told when what holds the first request has been opened."""
    scenario = SCENARIOS[name]
    executed, gate = (server.models / name / "1" / file for file in ("executed", "open"))
    for file in (executed, gate):
        file.unlink(missing_ok=True)
    opened = Event()
    asked: dict[str, Future[Any]] = {}

    def begun() -> set[str]:
        return set(executed.read_text().split()) if executed.exists() else set()

    def have_come(count: int) -> bool:
        # In this order, so that none is counted twice that an instance takes from the queue meanwhile.
        known = begun() | {one for one, answer in asked.items() if answer.done()}
        return len(known) + pending(server, name) >= count

    with ThreadPoolExecutor(len(scenario.asks)) as pool:
        try:
            for ask in scenario.asks:
                if ask.after_answers:
                    wait(asked.values())
                time.sleep(ask.after_s)
                asked[ask.name] = pool.submit(run, ask, opened)
                if ask.hold:
                    wait_until(lambda: bool(begun()), f"the model has begun {ask.name}")
                wait_until(partial(have_come, len(asked)), f"{ask.name} has come")
            if scenario.when:
                wait_until(lambda: len(begun()) == len(asked), "the model has begun all")
            if scenario.overtakes:
                wait(answer for one, answer in asked.items() if one != HOLD.name)
            time.sleep(scenario.hold_s)
        finally:
            opened.set()
            gate.touch()
        return {one: answer.result() for one, answer in asked.items()}


def _from_zero(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    first = min(outcome for outcome in outcomes.values() if isinstance(outcome, int))
    return {name: outcome - first if isinstance(outcome, int) else outcome for name, outcome in outcomes.items()}


def _document(scenario: Scenario, ask: Ask) -> dict[str, Any]:
    batch = [ask.rows] if scenario.max_batch_size else []
    count = ask.rows * ask.size
    inputs = [{"name": "hold", "datatype": "INT32", "shape": [*batch, ask.size], "data": [int(ask.hold)] * count}]
    if ask.other:
        inputs.append({"name": "other", "datatype": "INT32", "shape": [*batch, 1], "data": [0] * ask.rows})
    return {"id": ask.name, "inputs": inputs, "parameters": dict(ask.parameters)}
