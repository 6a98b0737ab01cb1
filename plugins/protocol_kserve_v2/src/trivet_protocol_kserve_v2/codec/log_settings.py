"""The logging extension: the server's log settings by Triton's names.

Source: Triton's logging extension. They are of the process, as its log is.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet import logs
from trivet.errors import UnimplementedError

Setting = bool | int | str

_FIELDS = {
    "log_info": "info",
    "log_warning": "warning",
    "log_error": "error",
    "log_verbose_level": "verbose",
    "log_format": "format",
}
FORMATS = {"default": "text", "ISO8601": "ISO8601", "text": "text", "json": "json"}
"""Triton's names of formats, and Trivet's."""

BOOLEANS = ("log_info", "log_warning", "log_error")
"""Settings that are true or false; ``log_verbose_level`` is a number of 0 or more, the others are text."""


def current() -> dict[str, Setting]:
    """The settings as they are shown, in Triton's order."""
    options = logs.current()
    return {
        "log_file": "" if options.file is None else str(options.file),
        "log_info": options.info,
        "log_warning": options.warning,
        "log_error": options.error,
        "log_verbose_level": options.verbose,
        "log_format": "default" if options.format == "text" else options.format,
    }


def change(settings: Mapping[str, Setting]) -> None:
    """Change what is named. Values are of the right type, and the format is one of :data:`FORMATS`.

    Raises :class:`~trivet.errors.UnimplementedError` for the file, as in Triton, and then changes nothing.
    """
    if "log_file" in settings:
        raise UnimplementedError("log file location can not be updated through network protocol")
    changes = {_FIELDS[name]: value for name, value in settings.items()}
    if "verbose" in changes:
        # Triton's levels have 32 bits and a sign, and negative ones are 0.
        level = int(changes["verbose"]) & 0xFFFFFFFF
        changes["verbose"] = level if level < 2**31 else 0
    if "format" in changes:
        changes["format"] = FORMATS[str(changes["format"])]
    if changes:
        logs.change(**changes)
