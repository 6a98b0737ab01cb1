"""The event loop of one instance whose ``execute`` is a coroutine function, shared by the requests that it serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

_MOST_THREADS = 1024
"""Made as they are needed."""


class CoroutineLoop:
    """An event loop on a thread of its own, from the first coroutine to :meth:`close`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # Each request whose caller reads slowly may block one thread; see InferenceResponseSender.send.
        self._loop.set_default_executor(ThreadPoolExecutor(_MOST_THREADS, f"{name}-wait"))
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> None:
        """Run a coroutine, which must not raise, as a task with these context variables. From any thread."""
        self._loop.call_soon_threadsafe(self._start, coroutine, context)

    def close(self) -> None:
        """Cancel what still runs, and wait for its end. From another thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _start(self, coroutine: Coroutine[Any, Any, None], context: Context) -> None:
        task = self._loop.create_task(coroutine, context=context)
        # The loop itself keeps no reference to its tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
