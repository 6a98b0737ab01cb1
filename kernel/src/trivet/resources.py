"""Resources that the instances of all models share: how much there is of each, and how much is taken.

Source: Triton's model configuration, "Rate Limiter Configuration", and its option ``--rate-limit-resource``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trivet.errors import InvalidArgumentError

Resource = tuple[int | None, str]
"""Whose it is, and its name: of one device by its number (that of every CPU instance is 0), or ``None`` of all."""

_FORMAT = "--rate-limit-resource option format is '<resource_name>:<count>:<device>' or '<resource_name>:<count>'. Got "


@dataclass(frozen=True, slots=True)
class ResourceSize:
    """How much there is of a resource, as the operator says."""

    name: str
    count: int
    device: int | None = None
    """``None`` for each device."""

    @classmethod
    def parse(cls, text: str) -> ResourceSize:
        """Read ``NAME:COUNT`` or ``NAME:COUNT:DEVICE``; raises :class:`~trivet.errors.InvalidArgumentError`."""
        name, *numbers = text.split(":")
        if not name or len(numbers) not in (1, 2) or not all(n.isascii() and n.isdecimal() for n in numbers):
            raise InvalidArgumentError(_FORMAT + text)
        return cls(name, *map(int, numbers))


@dataclass(frozen=True, slots=True)
class Share:
    """What one instance wants of the limiter: the ``rate_limiter`` of its group, on its device."""

    resources: Mapping[Resource, int] = field(default_factory=dict)
    priority: int = 1
    """At least 1; an instance of priority 2 has half the turns of one of priority 1."""


class Resources:
    """The books of one server: what the operator gave, what the instances want, and what they hold."""

    def __init__(self, sizes: Sequence[ResourceSize] = ()) -> None:
        """``sizes`` are those of the command line; of two for the same resource and device the last holds.

        A resource that has none gets the largest count that any instance wants, so that each can execute.
        """
        self._sizes: dict[str, dict[int | None, int]] = {}
        for size in sizes:
            self._sizes.setdefault(size.name, {})[size.device] = size.count
        self._limits: dict[Resource, int] = {}
        self._held: Counter[Resource] = Counter()

    def check(self, shares: Sequence[Share]) -> None:
        """Raise :class:`~trivet.errors.InvalidArgumentError` for an instance that could never have what it wants.

        It wants more of a resource than the operator gave, or calls global what another instance calls its device's.
        """
        new = {resource: number for share in shares for resource, number in share.resources.items()}
        everyone = {**self._limits, **new}
        for device, name in everyone:
            if device is not None and (None, name) in everyone:
                raise InvalidArgumentError(
                    f'Resource "{name}" is present as both global and device-specific resource in the model'
                    " configuration."
                )
        for share in shares:
            for resource, number in share.resources.items():
                size = self._size(resource)
                if size is not None and size < number:
                    raise InvalidArgumentError(
                        f'Resource count for "{resource[1]}" is limited to {size} which will prevent scheduling of one'
                        f" or more model instances, the minimum required count is {number}"
                    )

    def measure(self, wanted: Iterable[Mapping[Resource, int]]) -> None:
        """See how much there is of each resource, now that the instances are those that want these."""
        limits: dict[Resource, int] = {}
        for wants in wanted:
            for resource, number in wants.items():
                limits[resource] = max(limits.get(resource, 0), number)
        self._limits = {resource: self._size(resource) or number for resource, number in limits.items()}

    def suffice(self, wants: Mapping[Resource, int]) -> bool:
        """Whether there is enough left of all that an instance wants."""
        return all(self._held[resource] + number <= self._limits[resource] for resource, number in wants.items())

    def take(self, wants: Mapping[Resource, int]) -> None:
        """An instance holds these from now on."""
        self._held.update(wants)

    def give_back(self, wants: Mapping[Resource, int]) -> None:
        """It does no more."""
        self._held.subtract(wants)

    def _size(self, resource: Resource) -> int | None:
        """What the command line says; ``None`` where it does not name the resource."""
        device, name = resource
        sizes = self._sizes.get(name, {})
        # Of a global resource the device on the command line means nothing.
        found = sizes.values() if device is None else [sizes[key] for key in (device, None) if key in sizes]
        return max(found, default=None)
