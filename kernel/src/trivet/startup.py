"""What the operator sees while the server starts: models as they load, then one table and the addresses.

On a terminal models being loaded are shown live; anywhere else, and in a JSON log, the same facts are log lines.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trivet import logs
from trivet.lifecycle import ModelState

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.lifecycle import ModelEvent
    from trivet.model_control import LoadFailure

logger = logging.getLogger(__name__)


@contextmanager
def load_progress(engine: Engine) -> Iterator[None]:
    """Show models as they load, on standard error if that is a terminal."""
    if not logs.is_interactive():
        yield
        return
    # rich costs 50 ms to import, which only a person who watches should pay.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    progress = Progress(
        SpinnerColumn(),
        TextColumn("loading {task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    rows: dict[tuple[str, int], TaskID] = {}

    def show(event: ModelEvent) -> None:
        key = (event.name, event.version)
        if event.state is ModelState.LOADING:
            if key not in rows:
                rows[key] = progress.add_task(f"{event.name} version {event.version}", total=None)
        elif key in rows:
            progress.remove_task(rows.pop(key))

    engine.on_model_event.append(show)
    try:
        with progress:
            yield
    finally:
        engine.on_model_event.remove(show)


async def announce(
    engine: Engine, addresses: Mapping[str, Sequence[str]], failures: Sequence[LoadFailure], elapsed_s: float
) -> None:
    """Log every model with its state, and where the server listens."""
    index = await engine.repository_index()
    rows = [(entry.name, entry.version or "-", entry.state or "-", entry.reason) for entry in index]
    # One whose configuration could not even be read has no version whose state and reason the index could show.
    loaded = {entry.name for entry in index if entry.version}
    failed = {failure.name: failure.reason for failure in failures if failure.name not in loaded}
    rows = [row for row in rows if row[0] not in failed]
    rows += [(name, "-", "UNAVAILABLE", reason) for name, reason in failed.items()]
    rows.sort(key=lambda row: row[0])
    if rows:
        logger.info("models:\n%s", table(("Model", "Version", "State", "Reason"), rows))
    else:
        logger.info("no models")
    for name, urls in sorted(addresses.items()):
        for url in urls:
            logger.info("listening for %s on %s", name, url, extra={"listener": name, "address": url})
    logger.info("started in %.2f s", elapsed_s, extra={"elapsed_s": round(elapsed_s, 3)})


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, as wide as their longest cell; empty columns are left out."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    cells = [[line[i] for i in kept] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(kept))]
    out = io.StringIO()
    for line in cells:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
    return out.getvalue().rstrip("\n")
