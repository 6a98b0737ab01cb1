"""A repository of models that answer correctly, fail in every way, or never answer, as each request says.

The first element of a request's input decides: ``number * 16 + act``. Who behaves answers ``x + 16``, so that an answer
shows which request it belongs to, and the next step of an ensemble does the same with it.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class Act(IntEnum):
    """What a model does with a request."""

    ANSWER = 0
    SLOW = 1
    ERROR = 2
    """Answer it with an error; others in its batch get theirs."""
    RAISE = 3
    """Fail the whole batch."""
    EXIT = 4
    FEW = 5
    """Return too few responses."""
    LATER = 6
    """Answer through the sender, from another thread."""
    DROP = 7
    """Let go of the sender without an answer."""
    KEEP = 8
    """Keep the sender until the model is closed, and answer only where the request was cancelled by then."""
    JUNK = 9
    """Return something that is no response."""


_PRELUDE = f"""
import sys, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
ANSWER, SLOW, ERROR, RAISE, EXIT, FEW, LATER, DROP, KEEP, JUNK = range({len(Act)})

def x_of(request):
    return pb_utils.get_input_tensor_by_name(request, "x").as_numpy()

def act_of(x):
    return int(x.flat[0]) % 16 if x.size else ANSWER

def answer(x):
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 16)])

def error(text):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
"""

_ACTING = """
class TritonPythonModel:
    def initialize(self, args):
        self.kept = []

    def execute(self, requests):
        responses = []
        for request in requests:
            x = x_of(request)
            act = act_of(x)
            if act == SLOW:
                time.sleep(0.01)
            if act == RAISE:
                raise ValueError("asked to raise")
            if act == EXIT:
                sys.exit(3)
            if act == FEW:
                return []
            if act == JUNK:
                responses.append({"y": x})
            elif act == ERROR:
                responses.append(error("asked to fail"))
            elif act == LATER:
                sender = request.get_response_sender()
                threading.Timer(0.003, lambda s=sender, x=x: s.send(answer(x), flags=FINAL)).start()
                responses.append(None)
            elif act == DROP:
                responses.append(None)
            elif act == KEEP:
                self.kept.append(request.get_response_sender())
                responses.append(None)
            else:
                responses.append(answer(x))
        return responses
"""

_COUNTING = """
class TritonPythonModel:
    # As many responses as x[0, 1] says.
    def execute(self, requests):
        for request in requests:
            x = x_of(request)
            act = act_of(x)
            if act == RAISE:
                raise ValueError("asked to raise")
            sender = request.get_response_sender()
            for i in range(int(x.flat[1])):
                if sender.is_cancelled():
                    break
                sender.send(answer(x + 16 * i))
            if act == ERROR:
                sender.send(error("asked to fail"), flags=FINAL)
            elif act != DROP:
                sender.send(flags=FINAL)
"""

_SUMMING = """
class TritonPythonModel:
    # The state is the sum of the sequence's inputs so far.
    def execute(self, requests):
        responses = []
        for request in requests:
            x = x_of(request)
            ready = pb_utils.get_input_tensor_by_name(request, "READY")
            if ready is not None and not ready.as_numpy().flat[0]:
                responses.append(pb_utils.InferenceResponse([]))
                continue
            if act_of(x) == RAISE:
                raise ValueError("asked to raise")
            before = pb_utils.get_input_tensor_by_name(request, "before").as_numpy()
            sums = before + x.sum(keepdims=True)
            outputs = [pb_utils.Tensor("y", sums), pb_utils.Tensor("after", sums)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

_CALLING = """
import asyncio

class TritonPythonModel:
    # The model that it calls gets the act, too.
    async def execute(self, requests):
        return await asyncio.gather(*map(self.one, requests))

    async def one(self, request):
        x = x_of(request)
        inner = pb_utils.InferenceRequest(
            model_name="dynamic", requested_output_names=["y"], inputs=[pb_utils.Tensor("x", x)])
        response = await inner.async_exec()
        if response.has_error():
            return error(response.error().message())
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", response.output_tensors()[0].as_numpy())])
"""

_ITERATING = """
class TritonPythonModel:
    # Calls a decoupled model and answers with the last of what it said; gives up half-way where x is odd.
    def execute(self, requests):
        responses = []
        for request in requests:
            x = x_of(request)
            inner = pb_utils.InferenceRequest(
                model_name="count", requested_output_names=["y"], inputs=[pb_utils.Tensor("x", x)])
            last = error("nothing came")
            for number, response in enumerate(inner.exec(decoupled=True)):
                if response.has_error():
                    last = error(response.error().message())
                    break
                if response.output_tensors():
                    last = pb_utils.InferenceResponse([
                        pb_utils.Tensor("y", response.output_tensors()[0].as_numpy() - 16 * number)])
                if act_of(x) == SLOW and number == 1:
                    break
            responses.append(last)
        return responses
"""

_RELAYING = """
class TritonPythonModel:
    # Hands on what an ensemble with a decoupled member says, many requests at a time.
    async def execute(self, requests):
        for request in requests:
            x, sender = x_of(request), request.get_response_sender()
            inner = pb_utils.InferenceRequest(
                model_name="stream", requested_output_names=["y"], inputs=[pb_utils.Tensor("x", x)])
            async for response in await inner.async_exec(decoupled=True):
                if response.has_error():
                    sender.send(error(response.error().message()), flags=FINAL)
                    break
                if response.output_tensors():
                    room = sender.send(pb_utils.InferenceResponse(response.output_tensors()))
                    if room is not None:
                        await room
            else:
                sender.send(flags=FINAL)
"""

_STEPPING = """
class TritonPythonModel:
    # One response in each step, as many as x[0, 1] says; the state is how many there were.
    def execute(self, requests):
        for request in requests:
            x = x_of(request)
            done = int(pb_utils.get_input_tensor_by_name(request, "before").as_numpy().flat[0])
            if act_of(x) == RAISE and done == 2:
                raise ValueError("asked to raise")
            sender = request.get_response_sender()
            if done < x.flat[1]:
                outputs = [pb_utils.Tensor("y", x + 16 * done), pb_utils.Tensor("after", np.array([[done + 1]]))]
                sender.send(pb_utils.InferenceResponse(outputs))
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            elif act_of(x) == ERROR:
                sender.send(error("asked to fail"), flags=FINAL)
            else:
                sender.send(flags=FINAL)
"""

_TENSORS = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "y" data_type: TYPE_INT64 dims: [ -1 ] }
"""
_STATE = """
  state { input_name: "before" output_name: "after" data_type: TYPE_INT64 dims: [ 1 ]
          initial_state { name: "zero" data_type: TYPE_INT64 dims: [ 1 ] zero_data: true } }
  control_input { name: "READY" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } }
"""
_DECOUPLED = "model_transaction_policy { decoupled: true }"
_LIMITED = 'instance_group { count: 2 kind: KIND_CPU rate_limiter { resources { name: "R" global: true count: 1 } } }'
_STEP = (
    'step { model_name: "%s" model_version: -1 input_map { key: "x" value: "%s" } output_map { key: "y" value: "%s" } }'
)

ACTING = {
    "plain": "instance_group { count: 2 kind: KIND_CPU }",
    "limited": _LIMITED,
    "dynamic": "dynamic_batching { } instance_group { count: 2 kind: KIND_CPU }",
    "ordered": "dynamic_batching { preserve_ordering: true max_queue_delay_microseconds: 500 } " + _LIMITED,
    "cached": "dynamic_batching { } response_cache { enable: true }",
    "adaptive": """
dynamic_batching { }
parameters { key: "dynamic_batching.max_queue_delay" value { string_value: "auto" } }
parameters { key: "dynamic_batching.latency_objective_ms" value { string_value: "5" } }
""",
    "ranked": """
dynamic_batching {
  priority_levels: 3 default_priority_level: 2 max_queue_delay_microseconds: 300 preferred_batch_size: [ 4 ]
  default_queue_policy { max_queue_size: 20 default_timeout_microseconds: 20000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 2000 } }
}
model_warmup { name: "w" batch_size: 4 inputs { key: "x" value { data_type: TYPE_INT64 dims: [ 3 ] zero_data: true } } }
""",
}
"""Models that answer ``x + 16``, by name, with their configurations."""

_SEQUENCES = f"sequence_batching {{ {_STATE} max_sequence_idle_microseconds: 300000 "
SUMMING = {
    "direct": _SEQUENCES + "direct { } }",
    "oldest": _SEQUENCES + "oldest { max_candidate_sequences: 6 max_queue_delay_microseconds: 200 } }",
}
"""Models that sum up the inputs of a sequence."""

ENSEMBLES = {
    "chain": " ".join((_STEP % ("dynamic", "x", "a"), _STEP % ("plain", "a", "b"), _STEP % ("limited", "b", "y"))),
    "stream": " ".join((_STEP % ("count", "x", "a"), _STEP % ("ranked", "a", "y"))),
}


def write_models(repository: Path) -> None:
    """Everything above, in a repository."""
    for name, config in ACTING.items():
        _write(repository, name, _TENSORS + config, _ACTING)
    for name, config in SUMMING.items():
        _write(repository, name, _TENSORS.replace("[ -1 ]", "[ 1 ]") + config, _SUMMING)
    _write(repository, "count", _TENSORS + _DECOUPLED + " dynamic_batching { }", _COUNTING)
    _write(repository, "relay", _TENSORS + _DECOUPLED, _RELAYING)
    stepping = f"sequence_batching {{ iterative_sequence: true {_STATE} oldest {{ max_candidate_sequences: 12 }} }}"
    _write(repository, "steps", _TENSORS + _DECOUPLED + stepping, _STEPPING)
    _write(repository, "calls", _TENSORS + "dynamic_batching { }", _CALLING)
    _write(repository, "iterates", _TENSORS, _ITERATING)
    for name, steps in ENSEMBLES.items():
        tensors = _TENSORS.replace('backend: "python"', 'platform: "ensemble"')
        _write(repository, name, f"{tensors} ensemble_scheduling {{ {steps} }}", None)


def _write(repository: Path, name: str, config: str, source: str | None) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config)
    if source is not None:
        (version / "model.py").write_text(_PRELUDE + source)
