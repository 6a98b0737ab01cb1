"""Structured logging on the standard library: text for people, JSON for machines, under tritonserver's option names.

Everything goes to one handler on the root logger, on standard error or in ``--log-file``. Modules log through
``logging.getLogger(__name__)`` and put figures and names that a machine may want into ``extra={...}``: the JSON format
writes them as fields of their own, the text formats leave them out because the message says them already.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from trivet.errors import message_of

Format = Literal["text", "default", "ISO8601", "json"]

# What a record has by itself; whatever else is in its dictionary came through ``extra``.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
REPEATS_SHOWN = 20
"""How often a warning or error from one line of code is shown in :data:`REPEAT_WINDOW_S`."""
REPEAT_WINDOW_S = 10.0
_MESSAGES_KEPT = 1000
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that move a terminal's cursor, or end a line for some; but for tab and newline."""
_LETTERS = {
    logging.DEBUG: "V", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "E",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How to log. The names and defaults are tritonserver's ``--log-*`` options."""

    format: Format = "text"
    """``text`` (alias ``default``) writes Triton's line, ``I1123 02:24:29.598440 PID server.py:305] message``;
    ``ISO8601`` the same with a full UTC date; ``json`` one object per line."""
    verbose: int = 0
    """0 is off; 1 shows debug messages of the server and its plugins; 2 those of every library as well."""
    info: bool = True
    warning: bool = True
    error: bool = True
    file: Path | None = None
    """Appended to; ``None`` is standard error."""


class _RepeatedMessages(logging.Filter):
    """Shows a warning or error that comes again and again a few times, and then how often it came.

    Without it a fault that every request meets fills the disk and hides all else. Messages are the same where they come
    from one line of code and differ at most in the arguments that are filled in. Any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], _Repetition] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = (record.pathname, record.lineno, str(record.msg))
        with self._lock:
            seen = self._seen.get(key)
            if seen is None or record.created - seen.since >= REPEAT_WINDOW_S:
                if len(self._seen) >= _MESSAGES_KEPT:
                    self._seen.clear()
                self._seen[key] = _Repetition(record.created)
                if seen is not None and seen.hidden:
                    more = f" ({seen.hidden} more like this in the {REPEAT_WINDOW_S:g} s from its first on)"
                    record.msg, record.args = record.getMessage() + more, None
                return True
            seen.shown += 1
            if seen.shown > REPEATS_SHOWN:
                seen.hidden += 1
                return False
            return True


class _Repetition:
    __slots__ = ("hidden", "shown", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.shown = 1
        self.hidden = 0


class _EnabledLevels(logging.Filter):
    """Levels are switched one by one as in Triton: ``--log-warning=false`` hides warnings and still shows errors."""

    def __init__(self, options: LogOptions) -> None:
        super().__init__()
        self._info, self._warning, self._error = options.info, options.warning, options.error

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return self._error
        if record.levelno >= logging.WARNING:
            return self._warning
        return self._info if record.levelno >= logging.INFO else True


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to ``sys.stderr`` as it is at the time, so that a progress display can put lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class TextFormatter(logging.Formatter):
    """Triton's two line formats. ``iso`` chooses ``2024-11-23T02:24:29Z I`` over ``I1123 02:24:29.598440``.

    Messages quote what callers sent. So that none of it looks like a line of the log, lines that follow the first are
    indented, and control characters are written as escapes.
    """

    def __init__(self, *, iso: bool = False) -> None:
        super().__init__()
        self._iso = iso

    def format(self, record: logging.LogRecord) -> str:
        letter = _LETTERS.get(record.levelno, "I")
        when = datetime.fromtimestamp(record.created, tz=UTC)
        local = when.astimezone()
        head = f"{when:%Y-%m-%dT%H:%M:%SZ} {letter}" if self._iso else f"{letter}{local:%m%d %H:%M:%S.%f}"
        text = f"{head} {record.process} {record.filename}:{record.lineno}] {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text if text.isprintable() else _contained(text)


def _contained(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text.rstrip("\n")).replace("\n", "\n  ")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, ``source``, ``process``, ``thread``,
    ``exception`` where there is one, and what the caller passed as ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "source": f"{record.filename}:{record.lineno}",
            "process": record.process,
            "thread": record.threadName,
        }
        entry = extras_of(record) | entry
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            entry["exception"] = {
                "type": type(error).__qualname__,
                "message": message_of(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
        if record.stack_info:
            entry["stack"] = record.stack_info
        # An extra that JSON has no word for (a path, a dtype) is better as text than as a lost line.
        line = json.dumps(entry, default=str, ensure_ascii=False)
        return line if line.isprintable() else _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as ``extra``: figures and names (``model``, ``request_id``, ``trace_id``) for machines."""
    return {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}


def make_formatter(name: Format) -> logging.Formatter:
    """The formatter that ``--log-format`` means."""
    if name == "json":
        return JsonFormatter()
    return TextFormatter(iso=name == "ISO8601")


class _Configured:
    """What the process logs with."""

    options = LogOptions()
    packages: tuple[str, ...] = ()
    handler: logging.Handler | None = None


def current() -> LogOptions:
    """How the process logs now."""
    return _Configured.options


def change(**changes: Any) -> LogOptions:
    """Log otherwise from now on: ``changes`` are fields of :class:`LogOptions`, but not ``file``. Any thread.

    Where :func:`configure` was not called, as in a program that embeds the engine, the log is not this module's, and
    nothing but what :func:`current` says is changed.
    """
    _Configured.options = options = replace(_Configured.options, **changes)
    if _Configured.handler is not None:
        _apply(_Configured.handler, options, _Configured.packages)
    return options


def configure(options: LogOptions, *, packages: Iterable[str] = ("trivet",), stream: TextIO | None = None) -> None:
    """Set up the root logger, Python's warnings and uncaught exceptions of threads. Called once, on the main thread.

    ``packages`` are the import names whose debug messages ``--log-verbose=1`` shows: the kernel and the plugins.
    ``stream`` replaces standard error. Raises :class:`OSError` where ``options.file`` cannot be opened.
    """
    handler: logging.Handler
    if options.file is not None:
        handler = logging.FileHandler(options.file, encoding="utf-8", errors="backslashreplace")
    elif stream is not None:
        handler = logging.StreamHandler(stream)
    else:
        handler = _StandardError()
    _Configured.options, _Configured.packages, _Configured.handler = options, tuple(packages), handler

    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    _apply(handler, options, _Configured.packages)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_exception


def _apply(handler: logging.Handler, options: LogOptions, packages: Iterable[str]) -> None:
    """Formats, levels and filters. Filters are replaced as a whole: another thread may be logging."""
    handler.setFormatter(make_formatter(options.format))
    handler.filters = [_EnabledLevels(options), _RepeatedMessages()]
    root = logging.getLogger()
    # A level that is never shown is cheaper refused by the logger than by the filter.
    lowest = logging.INFO if options.info else logging.WARNING if options.warning else logging.ERROR
    root.setLevel(logging.DEBUG if options.verbose >= 2 else lowest)
    for package in packages:
        logging.getLogger(package).setLevel(logging.DEBUG if options.verbose >= 1 else logging.NOTSET)


def flush() -> None:
    """Write out what handlers hold; for the one place where the process ends without the interpreter's own clean-up."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    if sys.stdout is not None:
        sys.stdout.flush()


def is_interactive(stream: TextIO | None = None) -> bool:
    """Whether people watch: a terminal that can redraw lines."""
    stream = stream or sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread is not None else "an unknown thread"
    logging.getLogger("trivet").error(
        "uncaught exception in thread %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )
