"""Who has which CUDA stream, with PyTorch's pool of them played by this test: it is handed out in turn."""

from __future__ import annotations

from itertools import cycle
from typing import NamedTuple

import pytest
import torch
from trivet.errors import ResourceExhaustedError
from trivet_backend_torch.streams import Streams

POOL = 32


class Stream(NamedTuple):
    device_index: int
    cuda_stream: int


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = {index: cycle(range(1, POOL + 1)) for index in range(2)}
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(device, next(turns[device])))


@pytest.fixture
def streams() -> Streams:
    return Streams()


def test_as_many_instances_as_there_are_streams_have_one_each(streams: Streams) -> None:
    taken = set()
    for _ in range(POOL):
        taken.add(streams.take(0))
        torch.cuda.Stream(0)  # a Python model asks for one beside them
    assert len(taken) == POOL
    assert streams.take(1).device_index == 1


def test_however_often_another_model_is_loaded_again_an_instance_keeps_its_own(streams: Streams) -> None:
    kept, others = streams.take(0), set()
    for _ in range(3 * POOL):
        torch.cuda.Stream(0)
        others.add(other := streams.take(0))
        streams.give_back(other)
    assert kept not in others
    assert len(others) == 1, "each stream that was used has a workspace on the GPU"


def test_beyond_that_they_share_evenly(streams: Streams) -> None:
    taken = [streams.take(0) for _ in range(2 * POOL)]
    assert all(taken.count(stream) == 2 for stream in taken)


def test_no_graph_is_recorded_on_a_stream_that_is_shared(streams: Streams) -> None:
    taken = [streams.take(0) for _ in range(POOL + 1)]
    with (
        pytest.raises(ResourceExhaustedError, match="more than 32 PyTorch instances on the GPU"),
        streams.alone(taken[-1]),
    ):
        pass
    streams.give_back(taken[-1])
    with streams.alone(taken[-1]):
        assert taken[-1] not in [streams.take(0) for _ in range(2 * POOL)]
    assert streams.take(0) == taken[-1]
