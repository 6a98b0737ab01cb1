"""What the tests that cross packages share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from trivet.testing import RunningServer, running_server


@pytest.fixture(scope="session")
def trivet_server() -> Iterator[Callable[..., RunningServer]]:
    """Starts a server with every installed plugin: ``trivet_server(repository, model_control_mode="explicit")``.

    Called again with the same repository and options it gives the same server; all are stopped when the session ends. A
    test that loads and unloads models wants one for itself: :func:`trivet.testing.running_server`.
    """
    servers: dict[str, RunningServer] = {}
    with ExitStack() as stack:

        def start(repository: str | Path | Sequence[str | Path], **options: Any) -> RunningServer:
            key = repr((repository, sorted(options.items())))
            if key not in servers:
                servers[key] = stack.enter_context(running_server(repository, **options))
            return servers[key]

        yield start
