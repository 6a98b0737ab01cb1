"""The code blocks of a Markdown page, and how each kind of them is run.

What a reader would do with a page is done in an empty folder, from top to bottom:

* a block with a ``title``, or with ``# PATH`` as its first line, is a file, and is written;
* ``console`` blocks are commands after ``$``, each followed by the output that the page shows (``...`` stands for any);
  ``sh`` blocks are commands alone;
* ``python`` blocks are run, each as a script of its own;
* ``pbtxt``, ``json``, ``toml`` and ``yaml`` blocks must be well-formed, as what they are parts of;
* ``text`` and ``mermaid`` blocks are for the eye.

A comment before a block says otherwise: ``<!-- not run: REASON -->``; ``<!-- run instead: COMMAND -->`` for commands
that need what a test has not (a package index), and ``<!-- run before: COMMAND -->`` for what a reader is taken to have
(a folder of models); ``<!-- exit status: 1 -->`` for a last command that shows a failure.

Servers that a page starts get free ports, and the page's ports (``localhost:8000``) are replaced by them.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from trivet.config import parse_text_config

_COMMENT = re.compile(r"<!--\s*(not run|run instead|run before|exit status):\s*(.*?)\s*-->", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_PATH_COMMENT = re.compile(r"# ([\w./-]+\.\w+)(?::.*)?\n")
_PORT = re.compile(r"((?:localhost|127\.0\.0\.1):|port(?:\s*=\s*|\s+)|PORT=)(\d{4})\b")
_SERVE = re.compile(r"(^|[\s/])trivet serve\b(?!.*--help)")
_STARTED = "started in "
_COMMAND_S = 120
_ILLUSTRATIONS = frozenset({"text", "mermaid"})

_same = doctest.OutputChecker()
_SAMENESS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(slots=True)
class Block:
    """One fenced block, and what the comments before it say."""

    page: Path
    line: int
    language: str
    content: str
    title: str = ""
    not_run: str = ""
    before: list[str] = field(default_factory=list)
    instead: list[str] = field(default_factory=list)
    exit_status: int = 0

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[tuple[str, str]]:
        """Each command with the output that is shown for it."""
        if self.instead:
            return [(command, "") for command in self.instead]
        if self.language == "sh":
            lines = self.content.replace("\\\n", " ").splitlines()
            return [(line, "") for line in lines if line.strip() and not line.startswith("#")]
        found: list[tuple[str, str]] = []
        for line in self.content.replace("\\\n", " ").splitlines(keepends=True):
            if line.startswith("$ "):
                found.append((line[2:].rstrip("\n"), ""))
            elif not found:
                raise AssertionError(f"{self.where}: a console block begins with a command after '$ '")
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
        return found


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    pending: list[tuple[str, str]] = []
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            pending += _COMMENT.findall(token.content)
        elif token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title = _TITLE.search(rest) or _PATH_COMMENT.match(token.content)
            block = Block(page, (token.map or [0])[0] + 1, language, token.content, title=title[1] if title else "")
            for kind, value in pending:
                if kind == "not run":
                    block.not_run = " ".join(value.split())
                elif kind == "run instead":
                    block.instead.append(value)
                elif kind == "run before":
                    block.before.append(value)
                else:
                    block.exit_status = int(value)
            pending.clear()
            yield block
    assert not pending, f"{page}: a comment about a block has no block after it: {pending}"


class Reader:
    """Somebody who does what a page says, in ``folder``. Use as a context manager: servers are stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {port: _free_port() for port in ("8000", "8001", "8002", "9000")}
        self._server: _Server | None = None
        http, grpc, metrics = self._ports["8000"], self._ports["8001"], self._ports["8002"]
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
            # Where commands that are run instead of `pip install` put things.
            "PYTHONPATH": str(folder / ".packages"),
            "COLUMNS": "200",
            "TRIVET_HTTP_ADDRESS": "127.0.0.1",
            "TRIVET_HTTP_PORT": str(http),
            "TRIVET_GRPC_ADDRESS": "127.0.0.1",
            "TRIVET_GRPC_PORT": str(grpc),
            "TRIVET_METRICS_ADDRESS": "127.0.0.1",
            "TRIVET_METRICS_PORT": str(metrics),
            "TRIVET_URL": f"localhost:{http}",
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()

    def follow(self, block: Block) -> None:
        """Do what a block says. Raises :class:`AssertionError` naming page and line where that fails."""
        if block.not_run:
            return
        for command in block.before:
            self._run(block, command, "", 0)
        if block.title:
            path = self._folder / block.title
            assert path.resolve().is_relative_to(self._folder.resolve()), f"{block.where}: {block.title} is elsewhere"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.with_ports(block.content), encoding="utf-8")
        elif block.language in {"console", "sh"}:
            commands = block.commands()
            for number, (command, output) in enumerate(commands, 1):
                self._run(block, command, output, block.exit_status if number == len(commands) else 0)
        elif block.language == "python":
            self._run(block, f"{shlex.quote(sys.executable)} -c {shlex.quote(block.content)}", "", block.exit_status)
        else:
            _check_form(block)

    def stop_server(self) -> None:
        """End the server that the page started, as Ctrl-C does."""
        if self._server is not None:
            server, self._server = self._server, None
            server.stop()

    def _run(self, block: Block, command: str, expected: str, status: int) -> None:
        command = self.with_ports(command)
        if _SERVE.search(command) and not status:
            self.stop_server()
            self._server = _Server(command, self._folder, self._environment)
            output = self._server.wait_until_started(block.where)
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_COMMAND_S,
                check=False,
            )
            output = done.stdout
            assert done.returncode == status, (
                f"{block.where}: {command}\nended with status {done.returncode}, expected {status}\n{output}"
            )
        for shown, port in self._ports.items():
            output = output.replace(f":{port}", f":{shown}")
        # A body that curl prints has no line break at its end.
        output = output.rstrip("\n") + "\n"
        if expected.strip():
            assert _same.check_output(expected, output, _SAMENESS), (
                f"{block.where}: {command}\n--- the page shows\n{expected}--- it printed\n{output}"
            )

    def with_ports(self, text: str) -> str:
        """``text`` with the ports of the servers that this reader starts."""
        return _PORT.sub(lambda found: found[1] + str(self._ports.get(found[2], found[2])), text)


class _Server:
    """A running ``trivet serve``."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._started = threading.Event()
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_started(self, where: str) -> str:
        """What it printed so far."""
        self._started.wait(_COMMAND_S)
        output = "".join(self._lines)
        if _STARTED not in output:
            self._process.kill()
            raise AssertionError(f"{where}: the server did not start\n{output}")
        return output

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(_COMMAND_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
        assert status == 0, f"the server ended with status {status}\n{''.join(self._lines)}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if _STARTED in line:
                self._started.set()
        self._started.set()


def _check_form(block: Block) -> None:
    """Raise :class:`AssertionError` for a block that is not what its language says."""
    try:
        match block.language:
            case "pbtxt":
                parse_text_config(block.content, block.where)
            case "json":
                json.loads(block.content)
            case "toml":
                tomllib.loads(block.content)
            case "yaml":
                list(yaml.safe_load_all(block.content))
            case language if language in _ILLUSTRATIONS:
                pass
            case language:
                raise AssertionError(f"a block of language {language!r} is neither run nor checked; give it another")
    except Exception as error:
        raise AssertionError(f"{block.where}: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
