"""Model versions as callers write them in messages."""

from __future__ import annotations

import re

from trivet.errors import InvalidArgumentError

# What C's strtol takes for a number: it leaves alone what follows, so that "1.0" is 1.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", re.ASCII)
_LARGEST = 2**63 - 1


def usual_version(version: str) -> str:
    """A version in its usual spelling, "" where none is named. As lenient as Triton.

    Raises :class:`~trivet.errors.InvalidArgumentError`, as Triton does, where it is no number, or none from 0 up.
    """
    if not version:
        return ""
    match = _NUMBER.match(version)
    # Digits that cannot fit are not turned into a number, which would take long for very many.
    number = int(match[1]) if match is not None and len(match[1]) <= len(str(_LARGEST)) + 1 else None
    if number is None or abs(number) > _LARGEST:
        raise InvalidArgumentError(
            f"failed to get model version from specified version string '{version}' (details: stol), version should be"
            " an integral value > 0"
        )
    if number < 0:
        raise InvalidArgumentError(
            f"invalid model version specified '{version}' , version should be an integral value > 0"
        )
    return str(number)
