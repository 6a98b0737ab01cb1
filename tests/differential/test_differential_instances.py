"""Instances of Python models on a real Triton and on Trivet: rate limited, passive, bound to cores; refused alike.

Each execution says when it began and ended, by a clock that all processes of a machine share, and who it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from trivet.errors import InvalidArgumentError

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair, running_triton, running_trivet
from .waiting import pending, wait_until

pytestmark = pytest.mark.differential

MODEL = """
import os
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

HELD = Path(__file__).with_name("held")

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            began = time.monotonic()
            seconds = float(pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()[0])
            if seconds < 0:
                HELD.touch()
                while HELD.exists():
                    time.sleep(0.001)
            else:
                time.sleep(seconds)
            span = pb_utils.Tensor("SPAN", np.array([began, time.monotonic()]))
            cores = pb_utils.Tensor("CORES", np.array(sorted(os.sched_getaffinity(0)), np.int32))
            responses.append(pb_utils.InferenceResponse([span, cores]))
        return responses
"""

TENSORS = """
backend: "python"
input { name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] }
output [
  { name: "SPAN" data_type: TYPE_FP64 dims: [ 2 ] },
  { name: "CORES" data_type: TYPE_INT32 dims: [ -1 ] }
]
"""


def resource(name: str, count: int, *, everywhere: bool = False) -> str:
    return f'resources {{ name: "{name}" count: {count} {"global: true" if everywhere else ""} }}'


def on_cpu(*resources: str, count: int = 1, more: str = "") -> str:
    return f"{{ kind: KIND_CPU count: {count} {more} rate_limiter {{ {' '.join(resources)} }} }}"


SERVED = {
    # One licence for both models, and two instances each.
    "licence_a": [on_cpu(resource("licence", 1, everywhere=True), count=2)],
    "licence_b": [on_cpu(resource("licence", 1, everywhere=True), count=2)],
    # There are two of these, by the command line, and one for each instance.
    "pairwise": [on_cpu(resource("pair", 1), count=4)],
    # The second has half the turns of the first.
    "first": [on_cpu(resource("turn", 1), "priority: 1")],
    "second": [on_cpu(resource("turn", 1), "priority: 2")],
    # The first has had many turns before the second has its first.
    "early": [on_cpu(resource("late", 1))],
    "late": [on_cpu(resource("late", 1))],
    "half_passive": [on_cpu(more="passive: true"), on_cpu()],
    "bound": [on_cpu(more='host_policy: "core"')],
    "undefined_policy": [on_cpu(more='host_policy: "never defined"')],
    "nothing_of_it": [on_cpu(resource("pair", 0))],
    "last_of_two": [on_cpu(resource("pair", 9), resource("pair", 1))],
    "secondary": [on_cpu(more="secondary_devices { kind: KIND_NVDLA device_id: 3 }")],
    "by_itself": ["{ kind: KIND_MODEL count: 2 }"],
    "same_names": ['{ name: "a" kind: KIND_CPU }', '{ name: "a" kind: KIND_CPU }'],
}
REFUSED = {
    "too_large": [on_cpu(resource("pair", 3))],
    "both_in_one_model": [on_cpu(resource("licence", 1)), on_cpu(resource("licence", 1, everywhere=True))],
    "both_in_two_models": [on_cpu(resource("licence", 1))],
    "gpus_of_a_cpu": ["{ kind: KIND_CPU gpus: [ 0 ] }"],
    "gpus_of_a_model": ["{ kind: KIND_MODEL gpus: [ 0 ] }"],
    "gpus_of_auto": ["{ gpus: [ 0 ] }"],
    "no_gpu": ["{ kind: KIND_GPU }"],
    "profile": ['{ kind: KIND_CPU profile: [ "0" ] }'],
}
COMPETING = {"first", "second", "early", "late", "licence_a", "licence_b", "pairwise"}
OPTIONS = {
    "rate_limit": "execution_count",
    "rate_limit_resource": ["pair:2", "licence:1", "turn:1", "late:1"],
    "host_policy": ["core,cpu-cores=0-0", "core,numa-node=0"],
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, with the models of ``SERVED`` loaded and those of ``REFUSED`` in their repositories."""
    folder = tmp_path_factory.mktemp("instances")
    for name, groups in {**SERVED, **REFUSED}.items():
        add(folder / "models", name, groups)
    add(folder / "models", "unsized", [on_cpu(resource("unsized", 4))])
    options = [f"--{key.replace('_', '-')}={one}" for key, value in OPTIONS.items() for one in listed(value)]
    with running_pair(folder / "models", folder, options=options, only=list(SERVED), **OPTIONS) as pair:
        yield pair


def add(repository: Path, name: str, groups: Sequence[str]) -> None:
    """A model with these instance groups."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(f"{TENSORS} instance_group [ {', '.join(groups)} ]")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Execution(NamedTuple):
    """When it began and ended, in seconds, and on which cores it may have run."""

    began: float
    ended: float
    model: str
    cores: list[int]


def ask(server: Endpoints, model: str, seconds: float) -> Execution:
    """One execution that takes ``seconds``; negative: until the file ``held`` beside the model is gone."""
    tensor = {"name": "SECONDS", "shape": [1], "datatype": "FP32", "data": [seconds]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with urlopen(Request(f"http://{server.http}/v2/models/{model}/infer", body), timeout=60) as response:
        outputs = {output["name"]: output["data"] for output in json.load(response)["outputs"]}
    return Execution(*outputs["SPAN"], model, outputs["CORES"])


def execute(server: Endpoints, models: Iterable[str], seconds: float) -> list[Execution]:
    """Ask all at once; the executions by when they began."""
    wanted = list(models)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return sorted(pool.map(ask, repeat(server), wanted, repeat(seconds)))


def execute_queued(server: Endpoints, models: Sequence[str], seconds: float) -> list[Execution]:
    """The same, where the first of ``models`` has what they share until all others wait for it. Without that one."""
    first, *wanted = models
    held = server.models / first / "1" / "held"
    with ThreadPoolExecutor(len(models)) as pool:
        holder = pool.submit(ask, server, first, -1)
        wait_until(held.exists, f"{first} has begun")
        try:
            asked = [pool.submit(ask, server, model, seconds) for model in wanted]
            wait_until(lambda: sum(pending(server, model) for model in set(wanted)) == len(wanted), "all are queued")
        finally:
            held.unlink()
        executions = sorted(each.result() for each in asked)
        assert holder.result().ended <= executions[0].began
    return executions


def at_once(executions: Sequence[Execution]) -> int:
    """The most that ran at the same time."""
    return max(sum(other.began <= one.began < other.ended for other in executions) for one in executions)


@pytest.mark.parametrize("side", ["triton", "trivet"])
def test_models_that_share_a_resource_of_one_never_run_at_once(servers: Pair, side: str) -> None:
    executions = execute_queued(getattr(servers, side), ["licence_a", *["licence_a", "licence_b"] * 10], 0.01)
    assert at_once(executions) == 1
    assert {execution.model for execution in executions[:4]} == {"licence_a", "licence_b"}


@pytest.mark.parametrize("side", ["triton", "trivet"])
def test_as_many_run_as_there_are_resources(servers: Pair, side: str) -> None:
    assert at_once(execute(getattr(servers, side), ["pairwise"] * 12, 0.05)) == 2


@pytest.mark.parametrize("side", ["triton", "trivet"])
def test_an_instance_of_priority_two_has_half_the_turns(servers: Pair, side: str) -> None:
    executions = execute_queued(getattr(servers, side), ["first", *["first", "second"] * 24], 0.001)
    assert at_once(executions) == 1
    turns = [execution.model for execution in executions[:24]]  # while both wait
    assert 14 <= turns.count("first") <= 18


@pytest.mark.parametrize("name", sorted(set(SERVED) - COMPETING))
def test_both_serve(servers: Pair, name: str) -> None:
    for server in servers:
        assert len(execute(server, [name] * 4, 0.001)) == 4


def test_an_instance_runs_on_the_cores_of_its_policy(servers: Pair) -> None:
    for server in servers:
        (bound,), (free,) = execute(server, ["bound"], 0), execute(server, ["undefined_policy"], 0)
        assert bound.cores == [0]
        assert len(free.cores) >= 1


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_both_refuse_in_the_same_words(servers: Pair, name: str) -> None:
    theirs, ours = (load_error(server, name) for server in servers)
    # Ours say more, where there is a place in a file to point at.
    assert ours.startswith(theirs.removesuffix(";\n"))


def load_error(server: Endpoints, name: str) -> str:
    with pytest.raises(HTTPError) as raised:
        urlopen(Request(f"http://{server.http}/v2/repository/models/{name}/load", b"{}"), timeout=60)
    error: str = json.load(raised.value)["error"]
    return error


def load(server: Endpoints, name: str) -> None:
    with urlopen(Request(f"http://{server.http}/v2/repository/models/{name}/load", b"{}"), timeout=60):
        pass


def test_a_resource_without_a_size_is_there_only_here(servers: Pair) -> None:
    assert "resource without a size" in DIFFERENCES
    assert 'Resource count for "unsized" is limited to 0' in load_error(servers.triton, "unsized")
    load(servers.trivet, "unsized")
    assert len(execute(servers.trivet, ["unsized"] * 3, 0)) == 3


def test_who_comes_late_starts_level_only_here(servers: Pair) -> None:
    """The instances of one model that compete with nobody use up turns, and then compete."""
    assert "turns of before" in DIFFERENCES
    shares = []
    for server in servers:
        execute(server, ["early"] * 40, 0)
        executions = execute_queued(server, ["early", *["early", "late"] * 16], 0.001)
        shares.append([execution.model for execution in executions[:12]].count("late"))
    theirs, ours = shares
    assert theirs == 12
    assert 5 <= ours <= 7


def test_a_request_for_passive_instances_ends_only_the_real_one(tmp_path: Path) -> None:
    assert "only passive" in DIFFERENCES
    add(tmp_path / "models", "passive", [on_cpu(more="passive: true")])
    with running_triton(tmp_path / "models", tmp_path / "triton") as triton, pytest.raises(OSError):
        execute(triton, ["passive"], 0)
    with running_trivet(tmp_path / "models", tmp_path / "trivet") as trivet, pytest.raises(HTTPError) as raised:
        execute(trivet, ["passive"], 0)
    assert raised.value.code == 503
    assert "model 'passive' has no instance that takes requests" in json.load(raised.value)["error"]


def test_a_malformed_host_policy_fails_a_model_there_and_the_server_here(tmp_path: Path) -> None:
    assert "wrong host policy" in DIFFERENCES
    add(tmp_path / "models", "bound", [on_cpu(more='host_policy: "core"')])
    options = ["--host-policy=core,cpu-cores=0"]
    with running_triton(tmp_path / "models", tmp_path / "triton", only=(), options=options) as triton:
        assert "host policy setting 'cpu-cores' format is" in load_error(triton, "bound")
    with running_trivet(tmp_path / "models", tmp_path / "trivet", host_policy=["core,cpu-cores=0"]) as trivet:
        assert execute(trivet, ["bound"], 0)[0].cores == [0]
    with (
        pytest.raises(InvalidArgumentError, match="Got 0-"),
        running_trivet(tmp_path / "models", tmp_path / "malformed", host_policy=["core,cpu-cores=0-"]),
    ):
        pass
