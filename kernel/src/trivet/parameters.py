"""The settings of a backend: ``parameters`` of a model's configuration, and ``--backend-config=NAME,key=value``.

Values are text that anybody wrote. The readers say whose value is wrong, what it is and what was expected.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from trivet.errors import InvalidArgumentError

if TYPE_CHECKING:
    from trivet.backend import ModelContext

T = TypeVar("T")

# Triton's spellings, upper or lower case.
_TRUE = ("true", "on", "1")
_FALSE = ("false", "off", "0")

# All digits of a size_t; int() of more is slow on purpose.
_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """Values by name, and readers of them. ``owner`` is whose they are, for the message.

    The readers raise :class:`~trivet.errors.InvalidArgumentError`, see :meth:`bad`, for a value that is not allowed.
    """

    owner: str
    values: Mapping[str, str]

    @classmethod
    def of_model(cls, context: ModelContext) -> Parameters:
        """The model's parameters, over what ``--backend-config`` gives for all models of the backend."""
        return cls(f"model '{context.name}'", {**context.backend_options, **context.parameters})

    @classmethod
    def of_backend(cls, context: ModelContext, backend: str) -> Parameters:
        """What ``--backend-config`` gives, alone: what a model must not decide for itself."""
        return cls(f"--backend-config={backend}", context.backend_options)

    def bad(self, name: str, expected: str) -> InvalidArgumentError:
        """The error for a value that is not what was ``expected``."""
        return InvalidArgumentError(f"parameter '{name}' of {self.owner} is '{self.values[name]}', expected {expected}")

    def text(self, name: str) -> str | None:
        """Any value; ``None`` where it is not given."""
        return self.values.get(name)

    def integer(self, name: str, default: int, maximum: int = 2**31 - 1, *, minimum: int = 0) -> int:
        """A whole number from ``minimum`` (not below 0) to ``maximum``."""
        value = self.values.get(name)
        if value is None:
            return default
        if not re.fullmatch(f"[0-9]{{1,{_DIGITS}}}", value) or not minimum <= int(value) <= maximum:
            raise self.bad(name, f"an integer from {minimum} to {maximum}")
        return int(value)

    def fraction(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.values.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}", value) or float(value) > 1:
            raise self.bad(name, "a number from 0 to 1")
        return float(value)

    def boolean(self, name: str) -> bool | None:
        """Triton's spellings, upper or lower case; ``None`` where it is not given."""
        value = self.values.get(name)
        if value is None:
            return None
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise self.bad(name, f"one of {', '.join((*_TRUE, *_FALSE))}")

    def choice(self, name: str, choices: Mapping[str, T], *, default: T) -> T:
        """What ``choices`` has for the value."""
        value = self.values.get(name)
        if value is None:
            return default
        if value not in choices:
            raise self.bad(name, f"one of {', '.join(choices)}")
        return choices[value]

    def mapping(self, name: str) -> dict[str, Any] | None:
        """A JSON object; ``None`` where it is not given."""
        value = self.values.get(name)
        if value is None:
            return None
        try:
            loaded = json.loads(value)
        except (ValueError, RecursionError):
            loaded = None
        if not isinstance(loaded, dict):
            raise self.bad(name, "a JSON object")
        return loaded


def warn_of_similar(owner: str, given: Collection[str], known: Collection[str], logger: logging.Logger) -> None:
    """Log the names that are none of ``known`` but nearly are one, whatever their case.

    Parameters are free-form, so an unknown one is no error; a misspelt one deserves a word.
    """
    by_fold = {name.casefold(): name for name in known}
    for name in given:
        if name not in known and (close := difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.8)):
            meant = by_fold[close[0]]
            logger.warning("%s sets parameter '%s', which has no effect; did you mean '%s'?", owner, name, meant)
