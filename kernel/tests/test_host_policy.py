"""Host policies: how they are written, and that a thread runs where its policy says."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError, TrivetError, UnavailableError
from trivet.host_policy import HostPolicy, parse_host_policies, ranges

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="binds threads as Linux does")


def on_a_thread(function: Callable[[], object]) -> object:
    """What ``function`` returns or raises on a thread of its own, which binds nobody else."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except TrivetError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_settings_of_one_name_are_one_policy() -> None:
    assert parse_host_policies(
        ["gpu_0,cpu-cores=0-3,8", "gpu_0,numa-node=1", "cpu,cpu-cores=4", "cpu,cpu-cores=5"]
    ) == {
        "gpu_0": HostPolicy("gpu_0", frozenset({0, 1, 2, 3, 8}), 1),
        "cpu": HostPolicy("cpu", frozenset({5})),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu", "--host-policy option format is '<policy name>,<setting>=<value>'. Got cpu"),
        ("cpu,cpu-cores=", "--host-policy option format is"),
        (",cpu-cores=0", "--host-policy option format is"),
        ("cpu,colour=red", "policy 'cpu' has no setting 'colour'; there are cpu-cores and numa-node"),
        ("cpu,cpu-cores=a-b", "setting 'cpu-cores' is a list of cores and ranges, e.g. 0-3,8. Got a-b"),
        ("cpu,cpu-cores=0-3,,8", "Got "),
        ("cpu,cpu-cores=3-0", "Got 3-0"),
        ("cpu,cpu-cores=0-99999999999", "expected a number from 0 to 65535. Got 99999999999"),
        ("cpu,numa-node=-1", "expected a number from 0 to 1023. Got -1"),
    ],
)
def test_what_is_malformed_is_quoted(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        parse_host_policies([text])
    assert text in raised.value.message
    assert message in raised.value.message


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cores_read_back_as_they_are_shown(cores: set[int]) -> None:
    assert parse_host_policies([f"p,cpu-cores={ranges(cores)}"])["p"].cpu_cores == cores


@on_linux
def test_a_thread_and_those_it_starts_run_on_the_cores_of_the_policy() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)

    def bind() -> object:
        HostPolicy("p", frozenset({core})).apply()
        return os.sched_getaffinity(0), on_a_thread(lambda: os.sched_getaffinity(0))

    assert on_a_thread(bind) == ({core}, {core})
    assert os.sched_getaffinity(0) == before


@on_linux
def test_cores_that_are_not_there_are_named_with_those_that_are() -> None:
    error = on_a_thread(HostPolicy("p", frozenset({60000})).apply)
    assert isinstance(error, InvalidArgumentError)
    assert error.message.startswith("host policy 'p', cpu-cores=60000: Unable to set NUMA thread affinity:")
    assert error.message.endswith(f"this process may use the cores {ranges(os.sched_getaffinity(0))}")


def memory_policy() -> str:
    """How the kernel says the calling thread's memory is bound; it shows it for each mapping."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/numa_maps")
    return path.read_text().split(maxsplit=2)[1]


@on_linux
@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="this Linux knows nothing of NUMA")
def test_a_threads_memory_comes_from_the_node_of_the_policy() -> None:
    def bind() -> object:
        HostPolicy("p", numa_node=0).apply()
        return memory_policy()

    assert on_a_thread(bind) == "bind:0"
    assert memory_policy() == "default"


@on_linux
def test_a_node_that_is_not_there_is_named_with_those_that_are() -> None:
    error = on_a_thread(HostPolicy("p", numa_node=1000).apply)
    assert isinstance(error, InvalidArgumentError)
    assert error.message.startswith("host policy 'p', numa-node=1000: Unable to set NUMA memory policy:")
    assert "this machine has the nodes" in error.message


def test_another_operating_system_says_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UnavailableError, match="host policy 'p', cpu-cores=0: darwin cannot bind threads to cores"):
        HostPolicy("p", frozenset({0})).apply()
    with pytest.raises(UnavailableError, match=r"host policy 'p', numa-node=0: .* not for darwin"):
        HostPolicy("p", numa_node=0).apply()


def test_a_policy_without_settings_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    HostPolicy("p").apply()
    assert not HostPolicy("p").binds
