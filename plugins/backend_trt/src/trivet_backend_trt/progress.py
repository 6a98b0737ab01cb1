"""How far a build is, on the terminal: a bar for each phase that TensorRT is in, the inner ones below the outer."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class BuildProgress:
    """A context manager around a build, which runs on another thread; ``cancelled`` ends it at its next step.

    Nothing is shown where ``console``, standard error by default, is no terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._tasks: dict[str, list[TaskID]] = {}
        self._depths: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> BuildProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def monitor(self, trt: Any) -> Any:
        """An ``IProgressMonitor`` of the module ``trt``, which TensorRT calls from several threads."""
        shown = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.cancelled = shown.cancelled

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                shown.start(name, parent, steps)

            def step_complete(self, name: str, step: int) -> bool:
                return shown.step(name, step)

            def phase_finish(self, name: str) -> None:
                shown.finish(name)

        return Monitor()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins; several may have one name."""
        with self._lock:
            depth = self._depths[name] = self._depths.get(parent, -1) + 1 if parent else 0
            task = self._progress.add_task("  " * depth + name, total=steps)
            self._tasks.setdefault(name, []).append(task)

    def step(self, name: str, step: int) -> bool:
        """A step is done. Returns whether to go on."""
        with self._lock:
            if tasks := self._tasks.get(name):
                self._progress.update(tasks[-1], completed=step + 1)
        return not self.cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase ends, also one that did not come so far."""
        with self._lock:
            tasks = self._tasks.get(name)
            if tasks:
                self._progress.remove_task(tasks.pop())
