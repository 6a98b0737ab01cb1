"""The three notations of a configuration: protobuf text, YAML and JSON, each read into a :class:`ModelConfig`.

All errors are :class:`~trivet.errors.InvalidArgumentError`, one line per mistake: ``ORIGIN:LINE:COLUMN: FIELD: what is
wrong; what would be right``. The parsers are imported when a file of their kind is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from trivet.config.descriptors import POOL, fields_of
from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.tree import Mistake, Path, Position, format_path, merge, suggestion
from trivet.errors import InvalidArgumentError

_ENOUGH = 20
"""Mistakes that one error lists. A load request can bring a document of any size, and each mistake costs time."""


def parse_text_config(text: str, origin: str) -> ModelConfig:
    """Read protobuf text (``config.pbtxt``).

    Raises :class:`~trivet.errors.InvalidArgumentError` with ``origin``, line and column of the first mistake.
    """
    from google.protobuf import text_format  # noqa: PLC0415

    config = ModelConfig()
    try:
        return text_format.Parse(text, config, descriptor_pool=POOL)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        # Its text begins with the position, and sometimes with the whole line in quotes.
        problem = _explain(re.sub(r"^\d+:\d+ : ('.*': )?", "", str(error)))
        place = f"{origin}:{line}:{column}" if line is not None and column is not None else origin
        raise InvalidArgumentError(f"{place}: {problem}") from error


def parse_yaml_config(text: str, origin: str) -> ModelConfig:
    """Read YAML with the fields of the schema as keys, enumerators by name.

    Raises :class:`~trivet.errors.InvalidArgumentError` with a line for each mistake, which begins with ``origin`` and,
    where they are known, line and column.
    """
    from trivet.config.yaml_form import YamlError, read_yaml  # noqa: PLC0415

    try:
        document = read_yaml(text)
    except YamlError as error:
        place = ":".join(map(str, (origin, *error.position)))
        raise InvalidArgumentError(f"{place}: not valid YAML: {error}") from error
    except RecursionError:
        raise InvalidArgumentError(f"{origin}: not valid: nested too deeply, or an alias contains itself") from None
    return _build(document.value, origin, document.positions.get)


def parse_json_config(text: str, origin: str) -> ModelConfig:
    """Read JSON: ``config.json``, or the ``config`` of a load request. Raises as :func:`parse_yaml_config` does."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"{origin}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except ValueError as error:  # a key that is there twice, an integer of thousands of digits
        raise InvalidArgumentError(f"{origin}: not valid JSON: {error}") from error
    except RecursionError:
        raise InvalidArgumentError(f"{origin}: not valid: nested too deeply") from None
    return _build(value, origin, lambda path: _json_position(text, path))


def _build(value: object, origin: str, position: Callable[[Path], Position | None]) -> ModelConfig:
    config = ModelConfig()
    lines = [_line(mistake, origin, position) for mistake in islice(merge(config, value), _ENOUGH)]
    if lines:
        raise InvalidArgumentError("\n".join(lines))
    return config


def _line(mistake: Mistake, origin: str, position: Callable[[Path], Position | None]) -> str:
    found = position(mistake.path)
    place = f"{origin}:{found[0]}:{found[1]}" if found else origin
    field = format_path(mistake.path)
    return f"{place}: {field}: {mistake.problem}" if field else f"{place}: {mistake.problem}"


def _explain(problem: str) -> str:
    """What text_format says, with the name that was probably meant."""
    unknown = re.search(r'type "([\w.]+)" has no (field|value) named "?([\w.]+?)"?\.?$', problem)
    if unknown is None:
        return problem
    owner, what, word = unknown.groups()
    if what == "field":
        known = [field.name for field in fields_of(POOL.FindMessageTypeByName(owner))]
    else:
        known = list(POOL.FindEnumTypeByName(owner).values_by_name)
    return f"{owner.rpartition('.')[2]} has no {what} '{word}'{suggestion(word, known)}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"'{twice}' is there twice in one object")
    return result


def _json_position(text: str, path: Path) -> Position:
    """Where the key or element at ``path`` begins in JSON that is known to be valid."""
    decoder = json.JSONDecoder()
    blanks = re.compile(r"[ \t\r\n]*")

    def skip(index: int) -> int:
        match = blanks.match(text, index)
        return match.end() if match else index

    at = value = skip(0)
    for part in path:
        index = skip(value + 1)
        position = 0
        while True:
            at = index
            if isinstance(part, str):
                key, index = decoder.raw_decode(text, index)
                value = skip(skip(index) + 1)
                if key == part:
                    break
            else:
                value = index
                if position == part:
                    break
                position += 1
            _, index = decoder.raw_decode(text, value)
            index = skip(skip(index) + 1)
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
