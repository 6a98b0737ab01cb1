"""Restricted APIs: parts of the protocol that only requests with a secret header may use.

Source: tritonserver's ``--http-restricted-api``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from trivet.errors import InvalidArgumentError
from trivet.http import HttpRequest

APIS = (
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


@dataclass(frozen=True, slots=True)
class Restriction:
    """The header that a request must have."""

    key: str
    value: bytes

    def allows(self, request: HttpRequest) -> bool:
        """Whether the request has it; how long that takes says nothing about the value."""
        given = request.headers.get(self.key.lower().encode(), b"")
        return hmac.compare_digest(given, self.value)

    @property
    def message(self) -> str:
        """What a request that lacks the header is told."""
        return f"This API is restricted, expecting header '{self.key}'"


def parse_restrictions(options: Iterable[str]) -> dict[str, Restriction]:
    """Restrictions by API, from ``API[,API...]:KEY=VALUE`` settings.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting the setting that is malformed.
    """
    restrictions: dict[str, Restriction] = {}
    for option in options:
        apis, colon, pair = option.partition(":")
        key, equals, value = pair.partition("=")
        if not (colon and equals and key and value):
            raise InvalidArgumentError(
                f"--http-restricted-api={option}: expected API[,API...]:KEY=VALUE,"
                " e.g. model-repository,model-config:admin-key=secret"
            )
        for api in apis.split(","):
            if api not in APIS:
                raise InvalidArgumentError(
                    f"--http-restricted-api={option}: unknown API '{api}', expected one of {', '.join(APIS)}"
                )
            if api in restrictions:
                raise InvalidArgumentError(f"--http-restricted-api={option}: API '{api}' is restricted already")
            restrictions[api] = Restriction(key, value.encode())
    return restrictions
