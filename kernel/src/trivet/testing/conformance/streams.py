"""The kit for backends whose models give several responses to a request."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trivet.engine import Engine
from trivet.inference import InferenceRequest, InferenceResponse, ParameterValue
from trivet.testing.conformance.backend import BackendConformance
from trivet.testing.conformance.requests import TIMEOUT_S, Answers, Arrays, compare, outputs_of, request
from trivet.testing.conformance.rules import require
from trivet.throttle import Throttle

_EXECUTE = "trivet.backend.RequestInstance.execute"
_THROTTLE = "trivet.throttle.Throttle"


@dataclass(frozen=True)
class Stream:
    """A request to a decoupled model, and the responses that it gets, computed without the backend."""

    inputs: Arrays
    responses: Sequence[Arrays]
    """All outputs of each response, two responses at least; a last one without outputs need not be named."""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


class StreamingBackendConformance(BackendConformance, ABC):
    """All of :class:`~trivet.testing.conformance.BackendConformance`, and what holds for streams of responses.

    ``expected`` says what a caller has in the end who keeps the last value of each output.
    """

    @abstractmethod
    def stream(self) -> Stream:
        """A request that the model answers more than once."""

    def test_a_stream_comes_in_order_and_ends(self) -> None:
        """Several at once, each with its own responses."""
        stream = self.stream()

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [_ask(stream) for _ in range(6)]
            answers.submit(*requests)
            await answers.all()
            for one in requests:
                self._compare(answers.responses[one], stream, "one of six streams at once gets")

        self._run(check)

    def test_a_stream_that_is_cancelled_ends_and_costs_no_other(self) -> None:
        """After its first response, and more of them than are ever executed at once."""
        stream = self.stream()

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [_ask(stream) for _ in range(24)]
            begun: asyncio.Queue[InferenceRequest] = asyncio.Queue()
            answers.on_response = lambda one, _: begun.put_nowait(one)
            answers.submit(*requests)
            cancelled = set(requests[::2])
            while not all(any(response.final for response in answers.responses[one]) for one in requests):
                one = await asyncio.wait_for(begun.get(), TIMEOUT_S)
                if one in cancelled:
                    engine.cancel(one)
            await answers.all()
            for one in requests:
                if one not in cancelled:
                    self._compare(answers.responses[one], stream, "a stream beside cancelled ones gets")

        self._run(check)

    def test_a_slow_reader_costs_no_more_than_its_instance(self) -> None:
        """One caller takes nothing after its first response; others are answered, and it gets the rest in the end."""
        stream = self.stream()

        async def check(engine: Engine) -> None:
            reader = _SlowReader(asyncio.get_running_loop())
            slow = Answers(engine)
            one = _ask(stream)
            one.throttle = reader
            slow.on_response = lambda *_: reader.stop()
            slow.submit(one)
            try:
                await asyncio.wait_for(reader.stopped.wait(), TIMEOUT_S)
                others = Answers(engine)
                requests = [_ask(stream) for _ in range(4)]
                others.submit(*requests)
                await others.all()
                for other in requests:
                    self._compare(others.responses[other], stream, "a stream beside a slow reader gets")
            finally:
                slow.on_response = None
                reader.go_on()
            await slow.all()
            self._compare(slow.responses[one], stream, "a slow reader that goes on gets", _THROTTLE)

        self._run(check)

    def test_unloading_lets_streams_end(self) -> None:
        """What was accepted is answered to its last response."""
        stream = self.stream()

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [_ask(stream) for _ in range(6)]
            answers.submit(*requests)
            await engine.unload("m")
            await answers.all()
            for one in requests:
                self._compare(answers.responses[one], stream, "a stream whose model was unloaded gets")

        self._run(check)

    async def _answers(self, engine: Engine, what: str) -> None:
        await super()._answers(engine, what)
        answers = Answers(engine)
        stream = self.stream()
        one = _ask(stream)
        answers.submit(one)
        await answers.all()
        self._compare(answers.responses[one], stream, f"a stream of {what} gets")

    def _compare(self, responses: Sequence[InferenceResponse], stream: Stream, what: str, of: str = _EXECUTE) -> None:
        __tracebackhide__ = True
        found = [outputs_of([response]) for response in responses]
        if found and not found[-1]:
            found.pop()
        require(len(found) == len(stream.responses), f"{what}: all its responses", of,
                f"{len(found)}, expected {len(stream.responses)}")  # fmt: skip
        for number, (got, expected) in enumerate(zip(found, stream.responses, strict=True), 1):
            compare(got, expected, self.tolerance, of, f"{what}, as response {number}")


class _SlowReader(Throttle):
    """A caller that lets the test say whether it reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = threading.Event()
        self._room.set()
        self._promised = False
        self._waiting: list[Callable[[], None]] = []
        self.stopped = asyncio.Event()

    def __call__(self) -> None:
        if not self._promised:
            self._room.wait(TIMEOUT_S)
        self._promised = False

    def holds(self) -> bool:
        self._promised = self._room.is_set()
        return not self._promised

    def when_room(self, callback: Callable[[], None]) -> None:
        if self.holds():
            self._waiting.append(callback)
        else:
            self._loop.call_soon(callback)

    def stop(self) -> None:
        """Read nothing more. On the event loop."""
        self._room.clear()
        self.stopped.set()

    def go_on(self) -> None:
        """Read again. On the event loop."""
        self._room.set()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


def _ask(stream: Stream) -> InferenceRequest:
    return request("m", stream.inputs, parameters=stream.parameters)
