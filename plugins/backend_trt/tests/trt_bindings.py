"""The real bindings' signatures, as their docstrings have them, and whether a call fits one."""

from __future__ import annotations

import functools
import importlib
import re
from types import ModuleType
from typing import Any

REAL = ("tensorrt", "tensorrt_lean", "tensorrt_rtx")

# Types in the bindings' docstrings that a call can be checked for. Others are the bindings' own classes.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "typing.SupportsInt": int,
    "int": int,
    "str": str,
    "bool": bool,
    "tuple": tuple,
    "list": list,
    "collections.abc.Buffer": bytes,
    "typing_extensions.Buffer": bytes,
}


@functools.cache
def installed() -> list[ModuleType]:
    """The modules of TensorRT that can be imported here; importing them takes no GPU."""
    found = []
    for name in REAL:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            continue
    return found


@functools.cache
def overloads(name: str, doc: str) -> list[list[tuple[str, str, bool]]]:
    """Name, type, and whether there is a default, of the arguments after ``self``, for each signature of a method."""
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", doc, re.MULTILINE)
    found = []
    for line in lines:
        if line.startswith("*args"):
            continue
        arguments = [part for part in re.split(r", (?=\w+: )", line) if part]
        parsed = []
        for argument in arguments:
            key, _, kind = argument.partition(": ")
            if key != "self":
                parsed.append((key, kind.partition(" = ")[0], " = " in kind))
        found.append(parsed)
    return found


def fits(arguments: list[tuple[str, str, bool]], given: tuple[Any, ...]) -> bool:
    """Whether positional arguments are as many as a signature takes, and of its types."""
    least = sum(1 for _, _, default in arguments if not default)
    if not least <= len(given) <= len(arguments):
        return False
    return all(
        isinstance(value, _TYPES[kind]) if kind in _TYPES else True
        for value, (_, kind, _) in zip(given, arguments, strict=False)
    )


def check_call(kind: str, name: str, given: tuple[Any, ...]) -> None:
    """Fail where a class of the real bindings has no such method, or the method takes no such arguments."""
    for module in installed():
        method = getattr(getattr(module, kind), name, None)
        assert method is not None, f"{module.__name__} has no {kind}.{name}"
        known = overloads(name, method.__doc__)
        assert any(fits(arguments, given) for arguments in known), (
            f"{module.__name__}: {kind}.{name} takes {known}, not {given}"
        )


def check_attribute(kind: str, name: str) -> None:
    """Fail where a class of the real bindings has no such property."""
    for module in installed():
        assert hasattr(getattr(module, kind), name), f"{module.__name__} has no {kind}.{name}"
