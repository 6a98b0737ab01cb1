"""What clients send of sequences: a case is sent to one model of :data:`.sequence_models.MODELS` on one server."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from .pairs import Endpoints


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


CASES: list[tuple[str, Case]] = [
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
]
"""The model, and what is sent to it."""
