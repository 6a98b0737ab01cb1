"""What is found wrong with a configuration, as pairs of field and message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from config_samples import Json, plain
from trivet.config import find_problems, normalize, parse_json_config

Wrong = tuple[Json, str, str]
"""A configuration, and field and message of its problem.

Messages marked by nothing were taken from Triton 2.51's replies and log; those of our own say so.
"""


def problems(config: Json, gpu_count: int = 0, **how: Any) -> list[tuple[str, str]]:
    parsed = parse_json_config(json.dumps(config), "test")
    normalize(parsed, backend=how.get("backend"), gpu_count=gpu_count)
    return [(problem.field, problem.message) for problem in find_problems(parsed, gpu_count=gpu_count, **how)]


def each(wrong: list[Wrong]) -> pytest.MarkDecorator:
    """Run the test, which has the arguments ``config``, ``field`` and ``message``, with each of them."""
    return pytest.mark.parametrize(("config", "field", "message"), wrong, ids=[message[:60] for _, _, message in wrong])


def control(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "control": [{"kind": f"CONTROL_SEQUENCE_{kind}", **fields}]}


def with_warmup(batch_size: int = 1, **inputs: Json) -> Json:
    return plain(model_warmup=[{"name": "w", "batch_size": batch_size, "inputs": inputs}])
