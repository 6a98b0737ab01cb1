"""Restricted APIs: parts of the protocol that only requests with a secret header may use.

Source: tritonserver's ``--http-restricted-api``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from trivet.http import HttpRequest

from trivet_protocol_kserve_v2 import restrictions


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
    secrets = restrictions.parse("http-restricted-api", "API", options)
    return {api: Restriction(key, value.encode()) for api, (key, value) in secrets.items()}
