"""Versions as they are written in paths."""

from __future__ import annotations

from trivet.errors import InvalidArgumentError, NotFoundError
from trivet.http import HttpRequest

_LARGEST = 2**63 - 1


class UnknownPathError(NotFoundError):
    """The path has the shape of one of the protocol's, and is none."""

    def __init__(self) -> None:
        super().__init__("Not Found")


def path_version(request: HttpRequest) -> str:
    """The version in the request's path, in its usual spelling; "" where the path has none.

    Raises :class:`UnknownPathError` for what is not all digits, and :class:`~trivet.errors.InvalidArgumentError` for
    what does not fit 64 bits.
    """
    version = request.params.get("version", "")
    if not version:
        return ""
    if not (version.isascii() and version.isdecimal()):
        raise UnknownPathError
    if len(version) > 19 or int(version) > _LARGEST:
        raise InvalidArgumentError(
            f"failed to get model version from specified version string '{version}' (details: stol), version should be"
            " an integral value > 0"
        )
    return str(int(version))
