"""Plain values (what JSON and YAML hold) into a configuration, under the rules of protobuf's JSON.

Protobuf's own ``json_format`` stops at the first mistake and does not say which element of a list it means; here every
mistake is found, with the path to it, and the fix where it can be guessed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trivet.config.descriptors import fields_of, is_repeated, map_parts

Path = tuple[str | int, ...]
"""Keys and indices from the document's root, as the document spells them."""
Position = tuple[int, int]
"""Line and column in the document, both from 1."""

_F = FieldDescriptor
_INTEGERS = {
    _F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _F.CPPTYPE_UINT32: (0, 2**32 - 1),
    _F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_KINDS = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a document."""

    path: Path
    problem: str


def merge(message: Message, value: object, path: Path = ()) -> Iterator[Mistake]:
    """Set the fields of ``message`` from a mapping, and give everything that is wrong with it, one by one.

    The work is done as the iterator is consumed: whoever has seen enough mistakes stops. A field goes by its own name
    or in lowerCamelCase, an enumerator by its name in any case or its number, and ``null`` leaves a field alone: so
    does protobuf's JSON, and Triton.
    """
    if not isinstance(value, Mapping):
        yield Mistake(path, f"must be a mapping of fields, not {_kind(value)}")
        return
    seen: dict[str, str] = {}  # field or oneof -> the key that set it
    for key, item in value.items():
        here = (*path, key)
        field = next((f for f in fields_of(message.DESCRIPTOR) if key in (f.name, f.camelcase_name)), None)
        if field is None:
            known = [f.name for f in fields_of(message.DESCRIPTOR)]
            yield Mistake(here, f"unknown field{suggestion(key, known)}")
        elif item is not None:
            group = field.containing_oneof
            earlier = seen.setdefault(group.name if group else field.name, key)
            if earlier != key:
                yield Mistake(here, f"cannot be set beside '{earlier}'; keep one of them")
            else:
                yield from _set(message, field, item, here)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known word that is nearest, else the known words where they are few."""
    word = word[:_SHOWN].lower()
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word, by_lower, n=1, cutoff=0.6) or [
        name for name in by_lower if name.endswith(f"_{word}")
    ]
    if near:
        return f"; did you mean '{by_lower[near[0]]}'?"
    return f"; expected one of {', '.join(by_lower.values())}" if len(by_lower) <= 16 else ""


def format_path(path: Path) -> str:
    """``input[0].dims[2]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" if text else _plain(part)
    return text


def _set(message: Message, field: FieldDescriptor, value: object, path: Path) -> Iterator[Mistake]:
    try:
        entry = map_parts(field)
        if entry is not None:
            yield from _set_map(getattr(message, field.name), *entry, value, path)
        elif is_repeated(field):
            yield from _set_list(getattr(message, field.name), field, value, path)
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            yield from merge(part, value, path)
        else:
            setattr(message, field.name, _scalar(field, value))
    except _WrongValueError as error:
        yield Mistake(path, str(error))


def _set_list(target: Any, field: FieldDescriptor, value: object, path: Path) -> Iterator[Mistake]:
    if not isinstance(value, list):
        raise _WrongValueError(f"must be a list, not {_kind(value)}; write it in [ ]")
    for index, item in enumerate(value):
        here = (*path, index)
        if field.message_type is not None:
            yield from merge(target.add(), item, here)
            continue
        try:
            target.append(_scalar(field, item))
        except _WrongValueError as error:
            yield Mistake(here, str(error))


def _set_map(
    target: Any, key_field: FieldDescriptor, value_field: FieldDescriptor, value: object, path: Path
) -> Iterator[Mistake]:
    if not isinstance(value, Mapping):
        raise _WrongValueError(f"must be a mapping, not {_kind(value)}")
    for key, item in value.items():
        here = (*path, key)
        try:
            converted = _scalar(key_field, key)
            if value_field.message_type is not None:
                yield from merge(target[converted], item, here)
            else:
                target[converted] = _scalar(value_field, item)
        except _WrongValueError as error:
            yield Mistake(here, str(error))


class _WrongValueError(Exception):
    """The value does not fit its field; the message says what would."""


def _scalar(field: FieldDescriptor, value: object) -> Any:
    if field.enum_type is not None:
        return _enumerator(field, value)
    if field.cpp_type in _INTEGERS:
        return _integer(value, *_INTEGERS[field.cpp_type])
    if field.cpp_type in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
        return _float(value)
    if field.cpp_type == _F.CPPTYPE_BOOL:
        if isinstance(value, bool):
            return value
        raise _WrongValueError(f"must be true or false, not {_shown(value)}")
    if not isinstance(value, str):
        raise _WrongValueError(f'must be text, not {_kind(value)}; write it in quotes: "{_plain(value)}"')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _WrongValueError("is not valid Unicode: it holds half of a surrogate pair") from None
    return value


def _enumerator(field: FieldDescriptor, value: object) -> int:
    enum: Any = field.enum_type
    known = enum.values_by_name
    if isinstance(value, str):
        found = known.get(value) or known.get(value.upper())
        if found is not None:
            return int(found.number)
    elif isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    raise _WrongValueError(f"has no value {_shown(value)}{suggestion(str(value), known)}")


def _integer(value: object, low: int, high: int) -> int:
    number: int | None = None
    if isinstance(value, bool):
        pass
    elif isinstance(value, int):
        number = value
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        number = int(value)
    if number is None:
        raise _WrongValueError(f"must be a whole number, not {_shown(value)}")
    if not low <= number <= high:
        raise _WrongValueError(f"must be from {low} to {high}, not {_shown(value)}")
    return number


def _float(value: object) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise _WrongValueError(f"must be a number, not {_shown(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return next((text for kind, text in _KINDS.items() if type(value) is kind), f"a {type(value).__name__}")


def _plain(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _shown(value: object) -> str:
    if isinstance(value, (list, dict)) or value is None:
        return _kind(value)
    return f"'{_plain(value)}'"
