"""``pb_utils.Logger``: a model's messages in the server's log."""

from __future__ import annotations

import logging
from enum import Enum
from typing import ClassVar

from trivet_backend_python.scope import calling_model

_log = logging.getLogger("trivet.model")


class Level(Enum):
    """Triton's levels; each value is the level of Python's :mod:`logging`."""

    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR
    VERBOSE = logging.DEBUG


class Logger:
    """Writes to the log of the model that calls, with its file and line. Any thread.

    Every method raises :class:`TypeError` for a message that is not a ``str``.
    """

    LogLevel: ClassVar = Level
    INFO: ClassVar = Level.INFO
    WARNING: ClassVar = Level.WARNING
    ERROR: ClassVar = Level.ERROR
    VERBOSE: ClassVar = Level.VERBOSE

    @staticmethod
    def log(message: str, level: Level = Level.INFO) -> None:
        """Raises :class:`TypeError` for a level that is none of this class's."""
        _write(message, level)

    @staticmethod
    def log_info(message: str) -> None:
        """With level ``INFO``."""
        _write(message, Level.INFO)

    @staticmethod
    def log_warn(message: str) -> None:
        """With level ``WARNING``."""
        _write(message, Level.WARNING)

    @staticmethod
    def log_error(message: str) -> None:
        """With level ``ERROR``."""
        _write(message, Level.ERROR)

    @staticmethod
    def log_verbose(message: str) -> None:
        """With level ``VERBOSE``, which is ``DEBUG`` in Python's :mod:`logging`."""
        _write(message, Level.VERBOSE)


def _write(message: str, level: Level) -> None:
    if not isinstance(message, str):
        raise TypeError(f"Logger takes a str, got {type(message).__name__}")
    if not isinstance(level, Level):
        raise TypeError(f"Logger takes a level such as Logger.INFO, got {level!r}")
    model = calling_model()
    # Two frames up is the line in the model.
    (model.logger if model else _log).log(level.value, "%s", message, stacklevel=3)
