"""What a backend does that no answer shows: what the kernel says of it, and which of its calls do not return."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

import anyio

from trivet.errors import named_message_of
from trivet.testing.conformance.rules import require

_COMPLAINING = ("trivet.instance", "trivet.lifecycle", "trivet.backend_pool")
"""Who logs what a backend's own code did wrong, where nobody waits for an answer that could tell."""

GRACE_S = 5.0
"""How long an engine or a loop may take to stop after a test failed, in seconds."""


class Complaints(logging.Handler):
    """What the kernel logged of a backend: a ``close`` that raised, an answer after the final one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # A model that raises while it executes is logged too; the request that it fails tells of that.
        error = record.exc_info[1] if record.exc_info else None
        if error is None or "failed to" in record.msg:
            text = record.getMessage()
            self._heard.append(text if error is None else f"{text}: {named_message_of(error)}")

    def require_none(self) -> None:
        """Require that there were none."""
        __tracebackhide__ = True
        require(
            not self._heard,
            "close() and trim() raise nothing, and nothing is answered after its final response",
            "trivet.backend.BackendInstance.close",
            "; ".join(dict.fromkeys(self._heard)),
        )


@contextmanager
def complaints() -> Iterator[Complaints]:
    """Listen to the kernel's log."""
    handler = Complaints()
    loggers = [logging.getLogger(name) for name in _COMPLAINING]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def run_apart(check: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end on an event loop in a thread of its own, and raise what it raises.

    The thread is a daemon, and so are the worker threads that it starts: a backend that does not return from one of
    them fails its test, and does not keep the process from ending.
    """
    ended: Future[None] = Future()

    async def run() -> None:
        try:
            await check()
        except BaseException as error:  # noqa: BLE001 - what fails or skips a test is raised below
            ended.set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=anyio.run, args=(run,), name="conformance", daemon=True)
    thread.start()
    try:
        ended.result()
    finally:
        thread.join(GRACE_S)


@asynccontextmanager
async def in_time(timeout_s: float, rule: str, of: str) -> AsyncIterator[None]:
    """Require that what is within ends, and say which code of the backend does not return."""
    __tracebackhide__ = True
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        require(False, rule, of, f"not after {timeout_s:.0f} s{still_running()}")


def still_running() -> str:
    """Where the threads are that execute code of a backend, as the end of a sentence; empty where all wait for work."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, innermost in sys._current_frames().items():
        frame = _code_called_by_kernel(innermost)
        if frame is not None and ident != threading.get_ident():
            code = frame.f_code
            found.append(f"; thread '{names.get(ident)}' is in {code.co_name}, {code.co_filename}:{frame.f_lineno}")
    return "".join(sorted(found))


def _code_called_by_kernel(innermost: FrameType) -> FrameType | None:
    """The innermost frame that is neither the kernel's nor the standard library's, if the kernel called it."""
    found: FrameType | None = None
    frame: FrameType | None = innermost
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "trivet":
            return found
        if found is None and package not in sys.stdlib_module_names:
            found = frame
        frame = frame.f_back
    return None
