"""Tensors inside dictionaries, lists and tuples: how they are named, taken apart and put together.

``images[0]`` is the first of the list that argument ``images`` is, ``features[age]`` an entry of a dictionary, and so
on at any depth. Source: the names that Triton's pytorch_backend has for packages of AOTInductor, ``ARGS[0][age]``,
``KWARGS[features][age]`` and ``RESULT[0]``, which mean the same here for every kind of file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trivet.errors import InvalidArgumentError

from trivet_backend_torch.runtime import torch

Path = tuple[int | str, ...]
"""The way to a tensor: indices of lists and tuples, keys of dictionaries."""

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)")


def split(name: str) -> tuple[str, Path]:
    """``images[0][boxes]`` to ``images`` and ``(0, "boxes")``; any other name as it is, and no path."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name, ()
    steps = match[2][1:-1].split("][") if match[2] else []
    return match[1], tuple(int(step) if step.isascii() and step.isdigit() else step for step in steps)


def join(head: str, path: Iterable[int | str]) -> str:
    """The name that :func:`split` takes apart."""
    return head + "".join(f"[{step}]" for step in path)


def follow(value: Any, path: Path) -> Any:
    """The part of a result at the end of a path. Raises :class:`LookupError` where there is none."""
    for step in path:
        if isinstance(value, Mapping):
            # A key that is a number is written like an index.
            value = value[step] if step in value else value[str(step)]
        elif isinstance(value, (list, tuple)) and isinstance(step, int):
            value = value[step]
        elif step != 0:
            raise LookupError(step)  # a tensor by itself is RESULT[0] too
    return value


def described(value: Any) -> str:
    """The structure of a result, for messages: ``{a: tensor, b: [tensor, tensor]}``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(described(inner) for inner in value) + "]"
    return "tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def gather(values: dict[str, Any], parts: Mapping[str, tuple[str, Path]], tuples: frozenset[str]) -> None:
    """Replace in ``values`` what ``parts`` name by the arguments that they are parts of.

    A whole whose steps are numbers is a list, or a tuple where its argument is one of ``tuples``; else a dictionary.
    Raises :class:`~trivet.errors.InvalidArgumentError` for a list that lacks one before its last.
    """
    wholes: dict[str, dict[int | str, Any]] = {}
    for name, (head, path) in parts.items():
        if name not in values:
            continue
        inside = wholes.setdefault(head, {})
        for step in path[:-1]:
            inside = inside.setdefault(step, {})
        inside[path[-1]] = values.pop(name)
    for head, whole in wholes.items():
        made = _closed(head, whole)
        values[head] = tuple(made) if head in tuples else made


def _closed(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    closed = {step: _closed(f"{name}[{step}]", inner) for step, inner in value.items()}
    if not all(isinstance(step, int) for step in closed):
        return closed
    for index in range(len(closed)):
        if index not in closed:
            raise InvalidArgumentError(f"there is no input '{name}[{index}]', and one that comes after it")
    return [closed[index] for index in range(len(closed))]


class Unflattened:
    """Calls a function with its leaves put into the structure that it was exported with.

    A program keeps that structure, tuples apart from lists, and wants the constants that it was exported with again.
    """

    def __init__(
        self, function: Callable[..., Any], spec: Any, names: Sequence[str], constants: Mapping[str, Any]
    ) -> None:
        self._function = function
        self._spec = spec
        self._names = tuple(names)
        self._constants = dict(constants)

    def __call__(self, *leaves: Any, **named: Any) -> Any:
        given = {**self._constants, **dict(zip(self._names, leaves, strict=False)), **named}
        arguments, keywords = torch.utils._pytree.tree_unflatten([given[name] for name in self._names], self._spec)
        return self._function(*arguments, **keywords)


def leaf_paths(spec: Any) -> list[Path]:
    """The path of each leaf of a tree of ``torch.utils._pytree``, in order."""
    tree = torch.utils._pytree.tree_unflatten(range(spec.num_leaves), spec)
    return [tuple(_step(key) for key in keys) for keys, _ in torch.utils._pytree.tree_flatten_with_path(tree)[0]]


def _step(key: Any) -> int | str:
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            step = getattr(key, attribute)
            return step if isinstance(step, int) else str(step)
    return str(key)
