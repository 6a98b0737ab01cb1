"""``ts.handler_utils.micro_batching``: a batch in parts, each of whose steps runs while another part is at the next."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from trivet_backend_torch.ts.torch_handler.base_handler import answer

HANDLER_METHODS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """In place of a handler's method ``handle``. Each step has threads of its own, one unless ``parallelism`` says."""

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Mapping[str, int] | None = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._parallelism: dict[str, int] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._local = threading.local()
        self.parallelism = {**dict.fromkeys(HANDLER_METHODS, 1), **(parallelism or {})}

    @property
    def parallelism(self) -> dict[str, int]:
        """How many threads each step has. Set those that change; raises :class:`ValueError` for what is no step or no
        positive number.
        """
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for step, count in parallelism.items():
            if step not in HANDLER_METHODS or count < 1:
                raise ValueError(
                    f"micro batching has {count} threads for '{step}', expected 1 or more for"
                    f" {', '.join(HANDLER_METHODS)}"
                )
        for step, count in parallelism.items():
            before = self._threads.get(step)
            self._threads[step] = ThreadPoolExecutor(count, thread_name_prefix=f"micro-batching-{step}")
            self._parallelism[step] = count
            if before is not None:
                before.shutdown()

    def shutdown(self) -> None:
        """End the threads; those of one that nothing refers to end by themselves."""
        for threads in self._threads.values():
            threads.shutdown()

    def handle(self, data: Any) -> list[Any]:
        """The answers to all rows, in their order. Raises what a step raises."""
        size = self.micro_batch_size
        ends: list[Future[Any]] = []
        for index, start in enumerate(range(0, len(data), size)):
            # Each waits only for one of the step before, whose threads wait for none after it.
            end: Future[Any] = Future()
            end.set_result(data[start : start + size])
            for step in HANDLER_METHODS:
                end = self._threads[step].submit(self._run, getattr(self.handler, step), index, end)
            ends.append(end)
        return [row for end in ends for row in end.result()]

    def _run(self, method: Any, index: int, before: Future[Any]) -> Any:
        self._local.index = index
        return method(before.result())

    def get_micro_batch_idx(self) -> int | None:
        """Which part this thread has at hand."""
        return getattr(self._local, "index", None)

    def __call__(self, data: Any, context: Any) -> Any:
        """As :meth:`BaseHandler.handle`."""
        return answer(self.handler, data, context, self.handle)
