"""The options of ``--cache-config=redis,...``, under the names of Triton's Redis cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from trivet.errors import InvalidArgumentError

USER_VARIABLE = "TRITONCACHE_REDIS_USERNAME"
PASSWORD_VARIABLE = "TRITONCACHE_REDIS_PASSWORD"  # noqa: S105 - where the password is, not what it is

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_TLS = ("cert", "key", "cacert", "cacert_dir", "sni")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """Where Redis is and how to talk to it. Times are in milliseconds, 0 meaning no limit, except ``ttl``."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    db: int = 0
    connect_timeout: int = 0
    socket_timeout: int = 0
    pool_size: int = 16
    """Connections at most, opened as they are needed."""
    wait_timeout: int = 100
    """How long a request waits for one of them."""
    tls_enabled: bool = False
    cert: str = ""
    key: str = ""
    cacert: str = ""
    cacert_dir: str = ""
    sni: str = ""
    ttl: int = 0
    """Seconds until Redis forgets an entry; 0: as its own policy says. Triton's cache has no such option."""


def read_options(given: Mapping[str, str]) -> RedisOptions:
    """Check and convert the options; user and password may come from Triton's environment variables.

    Raises :class:`~trivet.errors.InvalidArgumentError` naming what is missing, unknown or no such value.
    """
    if not given.get("host") or not given.get("port"):
        raise InvalidArgumentError(
            "Failed to initialize RedisCache, didn't specify address. Must at a minimum specify 'host' and 'port' in"
            " the configuration - e.g. --cache-config redis,host=redis --cache-config redis,port=6379"
        )
    kinds = {field.name: field.type for field in fields(RedisOptions)}
    values: dict[str, str | int | bool] = {}
    for variable, name in ((USER_VARIABLE, "user"), (PASSWORD_VARIABLE, "password")):
        if os.environ.get(variable):
            values[name] = os.environ[variable]
    for name, text in given.items():
        if name not in kinds:
            raise InvalidArgumentError(
                f"--cache-config=redis,{name}: there is no such option; expected one of {', '.join(kinds)}"
            )
        values[name] = _value(name, kinds[name], text)
    if any(given.get(name) for name in _TLS):
        values.setdefault("tls_enabled", True)
    options = RedisOptions(**values)  # type: ignore[arg-type]  # each was converted to its field's type
    if not 0 < options.port < 65536:
        raise InvalidArgumentError(f"--cache-config=redis,port={options.port}: expected 1 to 65535")
    if options.pool_size < 1:
        raise InvalidArgumentError(f"--cache-config=redis,pool_size={options.pool_size}: expected at least 1")
    return options


def _value(name: str, kind: object, text: str) -> str | int | bool:
    # Annotations are text in this module.
    if kind == "int":
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            raise InvalidArgumentError(f"--cache-config=redis,{name}={text}: expected a whole number, 0 or more")
        return int(text)
    if kind == "bool":
        if text.lower() not in _BOOLEANS:
            raise InvalidArgumentError(f"--cache-config=redis,{name}={text}: expected true or false")
        return _BOOLEANS[text.lower()]
    return text
