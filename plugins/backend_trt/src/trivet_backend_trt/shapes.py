"""Shapes of inputs on a command line, as ``trtexec`` writes them: ``input:1x3x224x224,mask:1x128``.

Commas separate inputs; a scalar is ``name:``. Names may hold colons, of which the last counts, and be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.errors import InvalidArgumentError

Sizes = tuple[int, ...]

_INPUT = re.compile(r"(?P<quote>'?)(?P<name>.+)(?P=quote):(?P<dims>[0-9]{1,18}(?:x[0-9]{1,18})*)?")


def parse_shapes(text: str) -> dict[str, Sizes]:
    """By input. Raises :class:`~trivet.errors.InvalidArgumentError` showing the part that is no shape."""
    shapes: dict[str, Sizes] = {}
    for part in text.split(","):
        match = _INPUT.fullmatch(part.strip())
        if match is None:
            raise InvalidArgumentError(f"'{part}' is no shape of an input, expected one such as 'input:1x3x224x224'")
        if match["name"] in shapes:
            raise InvalidArgumentError(f"input '{match['name']}' has two shapes in '{text}'")
        shapes[match["name"]] = tuple(int(dim) for dim in match["dims"].split("x")) if match["dims"] else ()
    return shapes


@dataclass(frozen=True, slots=True)
class ProfileShapes:
    """What one optimization profile is built for, by input: the least, the best and the most."""

    minimum: Mapping[str, Sizes]
    optimum: Mapping[str, Sizes]
    maximum: Mapping[str, Sizes]


def read_profiles(minimum: Sequence[str], optimum: Sequence[str], maximum: Sequence[str]) -> list[ProfileShapes]:
    """The profiles of options that are given once for each profile.

    As in ``trtexec``, what is left out is taken from the others: from ``optimum``, else ``maximum``, else ``minimum``.
    Raises :class:`~trivet.errors.InvalidArgumentError` where the options are not given equally often, and for sizes
    that are not in order.
    """
    count = max(len(minimum), len(optimum), len(maximum))
    for option, given in (("--min", minimum), ("--opt", optimum), ("--max", maximum)):
        if given and len(given) != count:
            raise InvalidArgumentError(
                f"{option} is given {len(given)} times, expected {count}: once for each optimization profile"
            )
    return [
        _profile(*(parse_shapes(given[index]) if given else None for given in (minimum, optimum, maximum)))
        for index in range(count)
    ]


def _profile(
    minimum: dict[str, Sizes] | None, optimum: dict[str, Sizes] | None, maximum: dict[str, Sizes] | None
) -> ProfileShapes:
    whole = optimum or maximum or minimum or {}
    made = ProfileShapes(minimum or whole, optimum or whole, maximum or whole)
    if not made.minimum.keys() == made.optimum.keys() == made.maximum.keys():
        raise InvalidArgumentError("--min, --opt and --max of one profile must name the same inputs")
    for name, low in made.minimum.items():
        best, high = made.optimum[name], made.maximum[name]
        in_order = len(low) == len(best) == len(high) and all(
            a <= b <= c for a, b, c in zip(low, best, high, strict=True)
        )
        if not in_order:
            raise InvalidArgumentError(
                f"input '{name}' has the shapes {_text(low)}, {_text(best)} and {_text(high)}, expected min <= opt <="
                " max in every dimension"
            )
    return made


def _text(shape: Sizes) -> str:
    return "x".join(map(str, shape)) or "scalar"
