"""Optimization profiles: what sizes each takes, and which one suits an execution best.

Source: Triton's tensorrt_backend (``GetMostOptimizedProfile``): of an instance's profiles that take the sizes, the one
whose optimum is nearest, and the first of those that are equally near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.errors import InvalidArgumentError

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a profile allows an input: its dimensions, or the values of a shape tensor."""

    minimum: Sizes
    optimum: Sizes
    maximum: Sizes

    def problem(self, given: Sizes, what: str) -> str | None:
        """Why sizes are not allowed, in Triton's words; ``what`` is "dimension" or "value"."""
        if len(given) != len(self.maximum):
            return f"model expected {len(self.maximum)} {what}s but received {len(given)} {what}s"
        for index, (low, size, high) in enumerate(zip(self.minimum, given, self.maximum, strict=True)):
            if not low <= size <= high:
                return f"model expected the shape of {what} {index} to be between {low} and {high} but received {size}"
        return None

    def distance(self, given: Sizes) -> int:
        """How far from the optimum."""
        return sum(abs(size - best) for size, best in zip(given, self.optimum, strict=True))


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimization profile of a plan."""

    index: int
    shapes: Mapping[str, Bounds]
    """By input, for those with dimensions that vary."""
    values: Mapping[str, Bounds]
    """By input, for shape tensors."""

    def problem(self, shapes: Mapping[str, Sizes], values: Mapping[str, Sizes]) -> str | None:
        """Why an execution does not fit."""
        for bounds_of, given, what in ((self.shapes, shapes, "dimension"), (self.values, values, "value")):
            for name, bounds in bounds_of.items():
                if problem := bounds.problem(given[name], what):
                    return f"input '{name}': {problem}"
        return None

    def distance(self, shapes: Mapping[str, Sizes], values: Mapping[str, Sizes]) -> int:
        """How far all inputs are from the optimum, together."""
        return sum(bounds.distance(shapes[name]) for name, bounds in self.shapes.items()) + sum(
            bounds.distance(values[name]) for name, bounds in self.values.items()
        )

    def max_batch_size(self) -> int | None:
        """The most rows that it takes; ``None`` where no input has a size that varies."""
        firsts = [bounds.maximum[0] for bounds in (*self.shapes.values(), *self.values.values()) if bounds.maximum]
        return min(firsts, default=None)


def choose(
    profiles: Sequence[Profile], shapes: Mapping[str, Sizes], values: Mapping[str, Sizes], model: str
) -> Profile:
    """The profile for an execution with these input shapes and values of shape tensors.

    Raises :class:`~trivet.errors.InvalidArgumentError` where none takes them, with what the first would have taken.
    """
    fitting = [profile for profile in profiles if profile.problem(shapes, values) is None]
    if fitting:
        return min(fitting, key=lambda profile: profile.distance(shapes, values))
    problem = profiles[0].problem(shapes, values)
    if len(profiles) == 1:
        raise InvalidArgumentError(f"request specifies invalid shape for model '{model}'. Error details: {problem}")
    names = " ".join(str(profile.index) for profile in profiles)
    raise InvalidArgumentError(
        f"failed to find any Optimization Profile among [{names}] of model '{model}' to support the requested"
        f" dimensions (or shape values); of profile {profiles[0].index}: {problem}"
    )


def select(profiles: Sequence[Profile], names: Sequence[str], model: str) -> list[Profile]:
    """The profiles that ``instance_group.profile`` names, by number; the first where it names none.

    Raises :class:`~trivet.errors.InvalidArgumentError` for one that the plan has not.
    """
    if not names:
        return [profiles[0]]
    for name in names:
        if not name.isdecimal() or int(name) >= len(profiles):
            raise InvalidArgumentError(
                f"unable to load model '{model}', configuration specified invalid profile '{name}'. Number of profiles"
                f" supported by TensorRT engine: {len(profiles)} (from 0)"
            )
    return [profiles[index] for index in dict.fromkeys(map(int, names))]
