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
    root.handlers = []
    yield
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
