"""Error messages, with what does not matter made equal."""

from __future__ import annotations

import re

_INPUTS = re.compile(r"Got input\(s\) \[(.*?)\], but missing required input\(s\) (\[.*?)?\]")
_BATCH = re.compile(r"input '\w+' batch size does not match")
_ADDRESS = re.compile(r"/\S*/models/")


def comparable(message: str) -> str:
    """Triton looks at the inputs in no order, and names the first that differs; and it names where its models lie."""
    message = _BATCH.sub("input 'ANY' batch size does not match", message)
    return _ADDRESS.sub("MODELS/", _INPUTS.sub(_sorted_names, message))


def _sorted_names(match: re.Match[str]) -> str:
    """Triton lists names in no order, and forgets the opening bracket where none is missing."""
    missing = (match[2] or "[").removeprefix("[")
    given, lacking = (",".join(sorted(names.split(","))) for names in (match[1], missing))
    return f"Got input(s) [{given}], but missing required input(s) [{lacking}]"
