"""Parts of the service that only callers with a secret may use, as the options of both transports name them.

Source: tritonserver's ``--http-restricted-api`` and ``--grpc-restricted-protocol``.
"""

from __future__ import annotations

from collections.abc import Iterable

from trivet.errors import InvalidArgumentError

PARTS = (
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


def parse(option: str, noun: str, values: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The key and the value that each restricted part asks for, from ``PART[,PART...]:KEY=VALUE`` settings.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting the setting of ``option`` that is malformed; it calls a
    part by the option's ``noun``.
    """
    secrets: dict[str, tuple[str, str]] = {}
    for given in values:
        parts, colon, pair = given.partition(":")
        key, equals, value = pair.partition("=")
        if not (colon and equals and key and value):
            raise InvalidArgumentError(
                f"--{option}={given}: expected {noun.upper()}[,{noun.upper()}...]:KEY=VALUE,"
                " e.g. model-repository,model-config:admin-key=secret"
            )
        for part in parts.split(","):
            if part not in PARTS:
                raise InvalidArgumentError(
                    f"--{option}={given}: unknown {noun} '{part}', expected one of {', '.join(PARTS)}"
                )
            if part in secrets:
                raise InvalidArgumentError(f"--{option}={given}: {noun} '{part}' is restricted already")
            secrets[part] = (key, value)
    return secrets
