"""Restricted protocols: parts of the service that only callers with a secret in their metadata may use.

Source: tritonserver's ``--grpc-restricted-protocol``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivet.errors import UnavailableError

from trivet_protocol_kserve_v2 import restrictions

Metadata = Sequence[tuple[str, str | bytes]]

_PREFIX = "triton-grpc-protocol-"


@dataclass(frozen=True, slots=True)
class Restriction:
    """What the metadata of a call must hold."""

    key: str
    value: bytes

    def check(self, metadata: Metadata) -> None:
        """Raise :class:`~trivet.errors.UnavailableError`, as Triton does, where the metadata does not hold it.

        How long that takes says nothing about the value.
        """
        given = (value.encode() if isinstance(value, str) else value for key, value in metadata if key == self.key)
        if not any(hmac.compare_digest(value, self.value) for value in given):
            raise UnavailableError(f"This protocol is restricted, expecting header '{self.key}'")


def parse_restrictions(options: Iterable[str]) -> dict[str, Restriction]:
    """Restrictions by protocol, from ``PROTOCOL[,PROTOCOL...]:KEY=VALUE`` settings.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting the setting that is malformed.
    """
    secrets = restrictions.parse("grpc-restricted-protocol", "protocol", options)
    # Metadata keys are lower case on the wire.
    return {name: Restriction(_PREFIX + key.lower(), value.encode()) for name, (key, value) in secrets.items()}
