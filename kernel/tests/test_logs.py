"""The log: Triton's line, JSON, levels, files, warnings and threads that die."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from trivet import logs
from trivet.logs import LogOptions


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, threading.excepthook, logging.getLogger("trivet").level)
    configured = (logs._Configured.options, logs._Configured.packages, logs._Configured.handler)
    root.handlers = []
    yield
    logs._Configured.options, logs._Configured.packages, logs._Configured.handler = configured
    logging.captureWarnings(capture=False)
    root.handlers, root.level, threading.excepthook = before[:3]
    logging.getLogger("trivet").setLevel(before[3])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_text_is_tritons_line(stream: io.StringIO) -> None:
    logs.configure(LogOptions(), stream=stream)
    logging.getLogger("trivet.server").warning("hot %s", "pot")
    assert re.fullmatch(r"W\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ test_logs\.py:\d+\] hot pot\n", stream.getvalue())


def test_nothing_that_a_message_quotes_looks_like_a_line_of_the_log(stream: io.StringIO) -> None:
    logs.configure(LogOptions(), stream=stream)
    forged = "I1123 02:24:29.598440 1 server.py:1] all is well"
    logging.getLogger("x").info("request '%s'", f"a\n{forged}\r\x1b[2J\x85\u2028b\tü\n")
    try:
        raise ValueError(f"no\n{forged}")
    except ValueError:
        logging.getLogger("x").exception("failed")
    text = stream.getvalue()
    assert f"] request 'a\n  {forged}\\r\\x1b[2J\\x85\\u2028b\tü\n  '\n" in text
    assert "] failed\n  Traceback (most recent call last):\n    File" in text
    assert text.endswith(f"\n  ValueError: no\n  {forged}\n")
    assert len([line for line in text.splitlines() if not line.startswith("  ")]) == 2


def test_iso8601(stream: io.StringIO) -> None:
    logs.configure(LogOptions(format="ISO8601"), stream=stream)
    logging.getLogger("x").error("no")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ E \d+ test_logs\.py:\d+\] no\n", stream.getvalue())


def test_json_has_extras_and_exceptions(stream: io.StringIO) -> None:
    logs.configure(LogOptions(format="json"), stream=stream)
    try:
        raise ValueError("line\nbreak")
    except ValueError:
        logging.getLogger("trivet.x").exception("failed", extra={"model": "m", "path": Path("/a")})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "trivet.x", "failed")
    assert (entry["model"], entry["path"]) == ("m", "/a")
    assert entry["exception"]["type"] == "ValueError"
    assert entry["exception"]["message"] == "line\nbreak"
    assert "test_logs.py" in entry["exception"]["traceback"]


def test_json_is_one_line_whatever_it_quotes(stream: io.StringIO) -> None:
    """For programs that see the end of a line in more than a newline, and for terminals."""
    logs.configure(LogOptions(format="json"), stream=stream)
    quoted = 'a\n{"level": "info"}\r\x1b[2J\x7f\x85\x9b\u2028\u2029b\tü'
    logging.getLogger("trivet.x").info("%s", quoted, extra={"request_id": quoted})
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    entry = json.loads(line)
    assert entry["message"] == entry["request_id"] == quoted


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (LogOptions(), "iwe"),
        (LogOptions(verbose=1), "diwe"),
        (LogOptions(info=False), "we"),
        (LogOptions(warning=False), "ie"),
        (LogOptions(info=False, warning=False), "e"),
        (LogOptions(error=False), "iw"),
    ],
)
def test_levels_are_switched_one_by_one(stream: io.StringIO, options: LogOptions, shown: str) -> None:
    logs.configure(options, stream=stream)
    logger = logging.getLogger("trivet.anything")
    for level in (logger.debug, logger.info, logger.warning, logger.error):
        level(level.__name__[0])
    assert "".join(line[-1] for line in stream.getvalue().splitlines()) == shown


def test_debug_messages_of_libraries_take_two(stream: io.StringIO) -> None:
    logs.configure(LogOptions(verbose=1), stream=stream)
    logging.getLogger("somebody.else").debug("chatter")
    assert stream.getvalue() == ""
    logs.configure(LogOptions(verbose=2), stream=stream)
    logging.getLogger("somebody.else").debug("chatter")
    assert "chatter" in stream.getvalue()


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "trivet.log"
    for text in ("first", "second"):
        logs.configure(LogOptions(file=path))
        logging.getLogger("trivet").info(text)
    logging.getLogger().handlers[0].close()
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["first", "second"]


def test_warnings_go_to_the_log(stream: io.StringIO) -> None:
    logs.configure(LogOptions(), stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old ways" in stream.getvalue()


def test_a_thread_that_dies_leaves_a_traceback(stream: io.StringIO) -> None:
    logs.configure(LogOptions(), stream=stream)

    def fail() -> None:
        raise RuntimeError("gone")

    thread = threading.Thread(target=fail, name="worker-7")
    thread.start()
    thread.join()
    assert "uncaught exception in thread worker-7" in stream.getvalue()
    assert "RuntimeError: gone" in stream.getvalue()


def messages(stream: io.StringIO) -> list[str]:
    return [line.partition("] ")[2] for line in stream.getvalue().splitlines()]


def test_a_warning_that_comes_again_and_again_is_counted(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure(LogOptions(), stream=stream)
    logger = logging.getLogger("trivet.x")
    for number in range(50):
        logger.warning("request %d failed", number)
        logger.info("request %d", number)
    logger.warning("another warning")
    shown = messages(stream)
    assert [line for line in shown if "failed" in line] == [
        f"request {number} failed" for number in range(logs.REPEATS_SHOWN)
    ]
    assert len([line for line in shown if line.startswith("request") and "failed" not in line]) == 50
    assert shown[-1] == "another warning"


def test_what_was_hidden_is_told_with_the_next_one(stream: io.StringIO) -> None:
    logs.configure(LogOptions(), stream=stream)
    (handler,) = logging.getLogger().handlers

    def warn(second: float, number: int) -> None:
        record = logging.makeLogRecord(
            {"name": "x", "levelno": logging.WARNING, "lineno": 1, "msg": "no %d", "args": (number,)}
        )
        record.created = second
        handler.handle(record)

    for number in range(logs.REPEATS_SHOWN + 7):
        warn(100.0, number)
    warn(100.0 + logs.REPEAT_WINDOW_S, 99)
    assert messages(stream)[-1] == "no 99 (7 more like this in the 10 s from its first on)"


def test_the_log_is_changed_while_it_is_written(stream: io.StringIO) -> None:
    logs.configure(LogOptions(info=False), stream=stream)
    logger = logging.getLogger("trivet.x")
    logger.info("hidden")
    assert logs.change(info=True, format="json") == LogOptions(format="json") == logs.current()
    logger.info("shown")
    logs.change(format="text", warning=False, verbose=1)
    logger.warning("hidden")
    logger.debug("in detail")
    first, second = stream.getvalue().splitlines()
    assert json.loads(first)["message"] == "shown"
    assert second.endswith("] in detail")


def test_without_a_log_of_its_own_nothing_is_changed_but_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs._Configured, "handler", None)
    level = logging.getLogger("trivet").level
    before = logs.current()
    assert logs.change(verbose=2).verbose == 2
    assert logging.getLogger("trivet").level == level
    logs.change(verbose=before.verbose)
