"""Responses of called models that wait to be used, and how many of them may.

A model that iterates slowly over the responses of another holds that one back, so that memory stays bounded. It must
not hold it back while it waits for something itself: what it waits for may need the very instance that is held, and the
two would wait for each other. So all calls of one run of a model's code share a :class:`Waits`, and while any of them
is waited for, all its streams flow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from trivet.backend import ModelCaller
from trivet.inference import InferenceRequest, InferenceResponse

MOST_WAITING = 16
"""Responses of one request that may wait to be used before the model that gives them is held back."""


class Waits:
    """How many calls of one run of a model's code are waited for now. ``changed`` guards it and its streams."""

    __slots__ = ("changed", "waiting")

    def __init__(self) -> None:
        # Reentrant: a stream may be closed by the garbage collector, on a thread that holds it.
        self.changed = threading.Condition()
        self.waiting = 0

    def begin(self) -> None:
        """Somebody waits for a response."""
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()

    def end(self) -> None:
        """They have it, or have given up."""
        with self.changed:
            self.waiting -= 1


class ResponseStream:
    """The responses of one request to another model, from the event loop to whoever iterates over them."""

    __slots__ = (
        "_caller",
        "_flows",
        "_on_end",
        "_request",
        "_responses",
        "_undelivered",
        "_waiting",
        "_waits",
        "_wake",
        "ended",
    )

    def __init__(
        self,
        caller: ModelCaller,
        request: InferenceRequest,
        waits: Waits,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Submits the request. ``on_end`` is called once, when the final response has come."""
        self._caller = caller
        self._request = request
        self._waits = waits
        self._on_end = on_end
        self._responses: deque[InferenceResponse] | None = deque()
        self._undelivered = 0
        self._flows = False
        self._waiting = False
        self._wake: Callable[[], None] | None = None
        self.ended = False
        """The final response has come."""
        request.throttle = self._hold
        caller.submit(request, self._receive)

    def take(self) -> InferenceResponse | None:
        """Block for the next response; ``None`` after the last."""
        with self._waits.changed:
            try:
                while not self._responses and not self.ended:
                    self._wait()
                    self._waits.changed.wait()
            finally:
                self._end_wait()
            return self._pop()

    async def take_async(self) -> InferenceResponse | None:
        """The same on an event loop of the model's."""
        loop = asyncio.get_running_loop()
        while True:
            with self._waits.changed:
                if self._responses or self.ended:
                    return self._pop()
                woken: asyncio.Future[None] = loop.create_future()
                self._wake = _waker(loop, woken)
                self._wait()
            try:
                await woken
            finally:
                with self._waits.changed:
                    self._end_wait()

    def cancel(self) -> None:
        """Cancel the request; what has come already can still be taken, the error that ends it comes last."""
        self._flow()
        self._caller.cancel(self._request)

    def close(self) -> None:
        """Nobody takes any more: drop what has come, and cancel the rest."""
        with self._waits.changed:
            self._responses = None
            if self.ended:
                return
        self.cancel()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._waits.begin()

    def _end_wait(self) -> None:
        if self._waiting:
            self._waiting = False
            self._waits.end()

    def _pop(self) -> InferenceResponse | None:
        if not self._responses:
            return None
        response = self._responses.popleft()
        self._waits.changed.notify_all()
        return response

    def _flow(self) -> None:
        with self._waits.changed:
            self._flows = True
            self._waits.changed.notify_all()

    def _hold(self) -> None:
        """``InferenceRequest.throttle``: on the called model's thread, before each response."""
        with self._waits.changed:
            while self._is_full() and not self._caller.on_loop():
                self._waits.changed.wait()
            self._undelivered += 1

    def _is_full(self) -> bool:
        # Who waits for this very stream gets what is on its way, however much that is.
        if self._flows or self._waits.waiting > self._waiting or self._responses is None:
            return False
        return len(self._responses) + self._undelivered >= MOST_WAITING

    def _receive(self, response: InferenceResponse) -> None:
        """On the event loop."""
        with self._waits.changed:
            # An error of the server's own has not been held.
            self._undelivered = max(0, self._undelivered - 1)
            if self._responses is not None:
                self._responses.append(response)
            # Now, and not when whoever waited gets to run: the others would flow for so long.
            self._end_wait()
            if response.final:
                self.ended = self._flows = True
            wake, self._wake = self._wake, None
            self._waits.changed.notify_all()
        if response.final and self._on_end is not None:
            self._on_end()
        if wake is not None:
            wake()


def _waker(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> Callable[[], None]:
    """Wakes who awaits ``future``, from any thread; nobody where the loop has ended meanwhile."""

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            if not loop.is_closed():
                raise

    return wake
