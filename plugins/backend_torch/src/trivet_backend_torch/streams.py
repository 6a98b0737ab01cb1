"""Which of PyTorch's CUDA streams is whose.

PyTorch has 32 on each GPU and hands them out in turn, so that after as many loads an instance would be given one that
another has: the two would wait for each other, and a CUDA graph that one records would hold what the other launches.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trivet.errors import ResourceExhaustedError

from trivet_backend_torch.runtime import torch

_STREAMS = 32
"""On each GPU. Source: ``c10/cuda/CUDAStream.cpp``, ``kStreamsPerPool``."""
_MANY = 1 << 20


class Streams:
    """The streams that instances use. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[tuple[int, int]] = Counter()
        self._idle: defaultdict[int, list[Any]] = defaultdict(list)
        """By GPU, what came back. PyTorch keeps a workspace of its libraries for each stream that ever computed."""

    def take(self, index: int) -> Any:
        """A stream on a GPU, until :meth:`give_back`, that no other instance has; with more instances than streams, one
        that as few as possible have.
        """
        with self._lock:
            offered: list[Any] = []
            while not offered or (self._users[_key(offered[-1])] and len(offered) < _STREAMS):
                idle = self._idle[index]
                offered.append(idle.pop() if idle else torch.cuda.Stream(index))  # type: ignore[no-untyped-call]
            chosen = min(offered, key=lambda stream: self._users[_key(stream)])
            self._users[_key(chosen)] += 1
            return chosen

    def give_back(self, stream: Any) -> None:
        """Its instance is closed."""
        with self._lock:
            self._users[_key(stream)] -= 1
            if not self._users[_key(stream)]:
                self._idle[stream.device_index].append(stream)

    @contextmanager
    def alone(self, stream: Any) -> Iterator[None]:
        """Nobody else is given the stream meanwhile.

        Raises :class:`~trivet.errors.ResourceExhaustedError` where somebody else has it.
        """
        with self._lock:
            if self._users[_key(stream)] != 1:
                raise ResourceExhaustedError(
                    f"there are more than {_STREAMS} PyTorch instances on the GPU, and where two share a CUDA stream no"
                    " CUDA graph can be recorded; load this model before others, or without optimization.cuda.graphs"
                )
            self._users[_key(stream)] += _MANY
        try:
            yield
        finally:
            with self._lock:
                self._users[_key(stream)] -= _MANY


def _key(stream: Any) -> tuple[int, int]:
    return stream.device_index, stream.cuda_stream


STREAMS = Streams()
"""Those of the process, as PyTorch's are."""
