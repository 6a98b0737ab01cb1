"""Restricted protocols: parts of the service that only callers with a secret in their metadata may use.

Source: tritonserver's ``--grpc-restricted-protocol``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trivet.errors import InvalidArgumentError, UnavailableError

Metadata = Sequence[tuple[str, str | bytes]]

PROTOCOLS = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)
_PREFIX = "triton-grpc-protocol-"


class Restriction:
    """What the metadata of a call must hold."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.value = value

    def check(self, metadata: Metadata) -> None:
        """Raise :class:`~trivet.errors.UnavailableError`, as Triton does, where the metadata does not hold it."""
        if not any(key == self.key and value == self.value for key, value in metadata):
            raise UnavailableError(f"This protocol is restricted, expecting header '{self.key}'")


def parse_restrictions(options: Iterable[str]) -> dict[str, Restriction]:
    """Restrictions by protocol, from ``PROTOCOL[,PROTOCOL...]:KEY=VALUE`` settings.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting the setting that is malformed.
    """
    restrictions: dict[str, Restriction] = {}
    for option in options:
        protocols, colon, pair = option.partition(":")
        key, equals, value = pair.partition("=")
        if not (colon and equals and key and value):
            raise InvalidArgumentError(
                f"--grpc-restricted-protocol={option}: expected PROTOCOL[,PROTOCOL...]:KEY=VALUE,"
                " e.g. model-repository,model-config:admin-key=secret"
            )
        for protocol in protocols.split(","):
            if protocol not in PROTOCOLS:
                raise InvalidArgumentError(
                    f"--grpc-restricted-protocol={option}: unknown protocol '{protocol}', expected one of"
                    f" {', '.join(PROTOCOLS)}"
                )
            if protocol in restrictions:
                raise InvalidArgumentError(
                    f"--grpc-restricted-protocol={option}: protocol '{protocol}' is restricted already"
                )
            # Metadata keys are lower case on the wire.
            restrictions[protocol] = Restriction(_PREFIX + key.lower(), value)
    return restrictions
