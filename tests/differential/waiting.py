"""Waiting for what a server has done, where only its metrics or a file that a model writes tells."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from urllib.request import urlopen

from .pairs import Endpoints


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Poll, for a minute at most; ``what`` is the condition in words.

    Raises:
        TimeoutError: It has not come true.

    """
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited a minute until {what}")
        time.sleep(0.005)  # nothing tells when another process has come so far


def pending(server: Endpoints, model: str) -> int:
    """How many requests a model has that wait for an execution."""
    with urlopen(f"http://{server.metrics}/metrics", timeout=60) as response:
        text = response.read().decode()
    found = re.search(rf'^nv_inference_pending_request_count{{model="{model}",version="1"}} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0
