"""Where option values come from: command line, then ``TRIVET_*`` variables, then a TOML file, then defaults.

Every value goes through :func:`convert`, whatever it came from, and a bad one is reported with its origin.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from trivet.options import Option, Settings

ENVIRONMENT_PREFIX = "TRIVET_"
DEFAULT_FILE = "trivet.toml"
BOOLEANS: Mapping[str, bool] = {
    "true": True, "on": True, "yes": True, "1": True,
    "false": False, "off": False, "no": False, "0": False,
}  # fmt: skip

REFUSED_VALUES: Mapping[tuple[str, str], str] = {
    ("model-control-mode", "poll"): "'poll' is a mode of tritonserver that Trivet does not have yet;"
    " use 'explicit' and load models through the API (trivet models load NAME)",
}
"""Values that only tritonserver has, by option and value, each with what to do instead."""

# Kubernetes puts TRIVET_HTTP_PORT=tcp://10.3.4.5:8000 into every pod beside a Service that is called trivet-http.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


class ValueProblem(ValueError):  # noqa: N818 - it is never raised to a user; the caller adds the origin
    """What is wrong with one value, without where it came from."""


def convert(option: Option, raw: Any) -> Any:
    """The value of one occurrence of ``option``: text from the command line or environment, or what TOML made of it.

    Raises :class:`ValueProblem`.
    """
    match option.kind:
        case "boolean":
            if isinstance(raw, bool):
                return raw
            value = BOOLEANS.get(str(raw).lower())
            if value is None:
                raise ValueProblem(f"{raw!r} is not a boolean; use true or false")
            return value
        case "integer" | "number":
            kind = int if option.kind == "integer" else float
            # A TOML true is an int to Python, and 8000.5 would be cut off in silence.
            if (
                isinstance(raw, bool)
                or (kind is int and isinstance(raw, float))
                or not isinstance(raw, (str, int, float))
            ):
                raise ValueProblem(f"{raw!r} is not {_numeral(option)}")
            try:
                return kind(raw)
            except ValueError:
                raise ValueProblem(f"{raw!r} is not {_numeral(option)}") from None
        case "choice":
            refused = REFUSED_VALUES.get((option.name, str(raw)))
            if refused:
                raise ValueProblem(refused)
            if raw not in option.choices:
                raise ValueProblem(f"{raw!r} is not one of {', '.join(option.choices)}")
            return raw
        case "string" | "path":
            if isinstance(raw, (bool, dict, list)):
                raise ValueProblem(f"{raw!r} is not a text")
            return str(raw)


@dataclass(frozen=True, slots=True)
class Source:
    """Raw values of one origin, by option key. ``where`` names the origin of one key for messages."""

    values: Mapping[str, Any]
    where: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    """What was passed over, as sentences for the log."""


@dataclass(slots=True)
class Resolved:
    """The settings, and what the log should say about how they came about."""

    settings: Settings
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def from_environment(options: Iterable[Option], environment: Mapping[str, str]) -> Source:
    """``TRIVET_HTTP_PORT=8000``. Several values are separated by white space, or written as a TOML array."""
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    ignored: list[str] = []
    names = {ENVIRONMENT_PREFIX + option.key.upper(): option for option in options}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        option = names.get(name)
        if option is None:
            close = difflib.get_close_matches(name, names, 1, cutoff=0.9)
            if close:
                ignored.append(f"environment variable {name} is not an option; did you mean {close[0]}?")
        elif option.kind == "integer" and _SERVICE_LINK.fullmatch(text):
            ignored.append(
                f"environment variable {name}={text} was set by Kubernetes for a Service of that name and is ignored;"
                f" set enableServiceLinks: false on the pod, or use --{option.name}"
            )
        else:
            values[option.key] = _split(name, text) if option.multiple else text
            where[option.key] = f"environment variable {name}"
    return Source(values, where, tuple(ignored))


def from_file(options: Iterable[Option], path: Path) -> Source:
    """``http-port = 8000`` or ``http_port = 8000``; an option that repeats takes an array.

    ``backend-config`` and ``cache-config`` may also be tables: ``[backend-config.onnxruntime]`` with ``key = value``
    lines. Paths are relative to the file's folder. Raises :class:`click.UsageError` naming the file, and the key where
    it is about one.
    """
    try:
        with path.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise click.UsageError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: not valid TOML: {error}") from error
    by_key = {option.key: option for option in options}
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    for written, content in document.items():
        key = written.replace("-", "_")
        option = by_key.get(key)
        if option is None:
            close = difflib.get_close_matches(key, by_key, 1)
            hint = f"; did you mean '{close[0].replace('_', '-')}'?" if close else ""
            raise click.UsageError(f"{path}: unknown option '{written}'{hint}")
        if key in values:
            raise click.UsageError(f"{path}: '{written}' is given twice, once with '-' and once with '_'")
        where[key] = f"{path}: '{written}'"
        tables = key in ("backend_config", "cache_config") and isinstance(content, dict)
        raw = _named_tables(where[key], content) if tables else content
        listed = [raw] if option.multiple and not isinstance(raw, list) else raw
        is_path = option.kind == "path" or key == "model_repository"
        values[key] = _relative_to(path.parent, listed) if is_path else listed
    return Source(values, where)


def resolve(options: tuple[Option, ...], sources: Iterable[Source]) -> Resolved:
    """Take each option from the first of ``sources`` that has it, else its default.

    Raises :class:`click.UsageError` that names where a bad value was given.
    """
    resolved = Resolved(Settings.of(options))
    values: dict[str, Any] = {}
    by_key = {option.key: option for option in options}
    for source in sources:
        resolved.warnings.extend(source.ignored)
        for key, raw in source.values.items():
            if key in values:
                continue
            option = by_key[key]
            try:
                values[key] = [convert(option, item) for item in raw] if option.multiple else convert(option, raw)
            except ValueProblem as problem:
                raise click.UsageError(f"{source.where[key]}: {problem}") from None
    resolved.settings = Settings.of(options, **values)
    return resolved


def _numeral(option: Option) -> str:
    return "an integer" if option.kind == "integer" else "a number"


def _split(name: str, text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return text.split()
    try:
        array = tomllib.loads(f"array = {text}")["array"]
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"environment variable {name}: not a TOML array: {error}") from error
    return list(array)


def _named_tables(where: str, tables: Mapping[str, Any]) -> list[str]:
    settings = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise click.UsageError(f"{where}: '{name}' is {table!r}, expected a table of the settings of that name")
        for key, value in table.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            settings.append(f"{name},{key}={text}")
    return settings


def _relative_to(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_relative_to(folder, item) for item in value]
    if not isinstance(value, str) or "://" in value or not value:
        return value
    return str(folder / value)
