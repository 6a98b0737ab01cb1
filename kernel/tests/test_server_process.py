"""``trivet serve`` as operators meet it: a process with a log, signals and an exit status.

Plugins come from throwaway distributions on ``sys.path``, found by their entry points as installed ones are.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

GATED = Path(__file__).parent / "gated"


def install(site: Path, name: str, module: str, entry: str = "") -> None:
    """Make ``site`` hold the metadata of a distribution whose entry point is ``module``."""
    info = site / f"{name.replace('-', '_')}-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(f"[trivet]\n{entry or name} = {module}\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the child's path, with the gated plugin installed."""
    site = tmp_path / "site"
    install(site, "gated-package", "gated_plugin", "gated")
    return site


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


def add_model(repository: Path, name: str, *pipes: str, content: str = "good") -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.gated").write_text(content)
    for pipe in pipes:
        os.mkfifo(version / pipe)
    return version


def environment(site: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRIVET_")}
    # Whatever else is installed beside the kernel stays off the ports.
    quiet = {"TRIVET_ALLOW_HTTP": "false", "TRIVET_ALLOW_GRPC": "false"}
    return {**kept, **quiet, "PYTHONPATH": os.pathsep.join([str(site), str(GATED)])}


class Serving:
    """A running ``trivet serve`` with a JSON log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.address: tuple[str, int] | None = None

    def until(self, message: str) -> dict[str, Any]:
        """Read the log up to an entry that contains ``message``."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry: dict[str, Any] = json.loads(line)
            self.log.append(entry)
            if entry.get("listener") == "line":
                host, _, port = entry["address"].rpartition(":")
                self.address = (host, int(port))
            if message in entry["message"]:
                return entry
        raise AssertionError(f"the log ended without {message!r}:\n{self.text()}")

    def end(self) -> int:
        """Read the rest of the log and wait for the exit status."""
        assert self.process.stderr is not None
        self.log += [json.loads(line) for line in self.process.stderr]
        return self.process.wait(timeout=60)

    def text(self) -> str:
        return "\n".join(f"{entry['level']}: {entry['message']}" for entry in self.log)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def connect(self) -> Client:
        assert self.address is not None
        return Client(self.address)


class Client:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.stream: IO[bytes] = self.socket.makefile("rb")

    def send(self, question: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(question).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.stream.readline())
        return answer

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.send(question)
        return self.receive()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


Serve = Callable[..., Serving]


@pytest.fixture
def serve(site: Path, repository: Path, tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> Serving:
        command = [sys.executable, "-m", "trivet", "serve", str(repository), "--log-format=json", *args]
        started.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(site))
        )
        return Serving(started[-1])

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Serving], Client]]:
    clients: list[Client] = []

    def make(serving: Serving) -> Client:
        clients.append(serving.connect())
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish_and_refuses_new_ones(
    serve: Serve, connect: Callable[[Serving], Client], repository: Path, number: signal.Signals
) -> None:
    version = add_model(repository, "slow", "execute")
    serving = serve()
    serving.until("started in")
    first, second = connect(serving), connect(serving)
    first.send({"model": "slow", "x": [1, 2]})
    with (version / "execute").open("wb"):  # opens when the instance waits at the pipe
        serving.signal(number)
        serving.until(f"{number.name}: finishing requests in flight")
        assert second.ask({"ready": True}) == {"live": True, "ready": False}
        refused = second.ask({"model": "slow", "x": [1]})
        assert refused["code"] == "unavailable"
        assert "stopping" in refused["error"]
    assert first.receive() == {"y": [2.0, 4.0]}
    assert serving.end() == 0
    assert serving.log[-1]["message"] == "stopped"


def test_a_second_signal_ends_the_process_at_once(
    serve: Serve, connect: Callable[[Serving], Client], repository: Path
) -> None:
    version = add_model(repository, "slow", "execute")
    serving = serve()
    serving.until("started in")
    connect(serving).send({"model": "slow", "x": [1]})
    with (version / "execute").open("wb"):
        serving.signal(signal.SIGTERM)
        serving.until("SIGTERM: finishing")
        serving.signal(signal.SIGTERM)
        assert serving.end() == -signal.SIGTERM


def test_the_exit_timeout_abandons_what_is_in_flight(
    serve: Serve, connect: Callable[[Serving], Client], repository: Path
) -> None:
    version = add_model(repository, "slow", "execute")
    serving = serve("--exit-timeout-secs=0")
    serving.until("started in")
    client = connect(serving)
    client.send({"model": "slow", "x": [1]})
    with (version / "execute").open("wb"):
        serving.signal(signal.SIGTERM)
        assert client.receive() == {
            "code": "unavailable",
            "error": "Server is stopping, the request was not finished",
        }
        assert serving.end() == 1
    assert "1 requests in flight" in serving.log[-1]["message"]


def test_a_model_that_fails_to_load_ends_the_process_and_is_named(serve: Serve, repository: Path) -> None:
    add_model(repository, "fine")
    add_model(repository, "broken", content="bad")
    serving = serve()
    assert serving.end() == 1
    assert "failed to load 'broken'; exiting because of --exit-on-error" in serving.log[-1]["message"]
    assert "the file says bad" in serving.text()


def test_a_named_model_that_is_not_there_ends_the_process(serve: Serve, repository: Path) -> None:
    add_model(repository, "fine")
    serving = serve("--model-control-mode=explicit", "--load-model=fine", "--load-model=ghost")
    assert serving.end() == 1
    assert "ghost" in serving.log[-1]["message"]


def test_a_repository_that_is_not_there_ends_the_process(serve: Serve, repository: Path) -> None:
    serving = serve("--model-repository=/nonexistent")
    assert serving.end() == 1
    assert "'/nonexistent' is not a directory" in serving.log[-1]["message"]


@pytest.mark.parametrize(("strict", "ready"), [("true", False), ("false", True)])
def test_without_exit_on_error_the_other_models_serve(
    serve: Serve, connect: Callable[[Serving], Client], repository: Path, strict: str, ready: bool
) -> None:
    add_model(repository, "fine")
    add_model(repository, "broken", content="bad")
    serving = serve("--exit-on-error=false", f"--strict-readiness={strict}")
    serving.until("started in")
    client = connect(serving)
    assert client.ask({"ready": True})["ready"] is ready
    assert client.ask({"model": "fine", "x": [3]}) == {"y": [6.0]}
    assert "error" in client.ask({"model": "broken", "x": [3]})


def test_sockets_answer_while_models_load(
    serve: Serve, connect: Callable[[Serving], Client], repository: Path, free_port: int
) -> None:
    version = add_model(repository, "slow", "load")
    serving = serve(f"--line-port={free_port}")
    serving.address = ("127.0.0.1", free_port)
    with (version / "load").open("wb"):
        assert connect(serving).ask({"ready": True}) == {"live": True, "ready": False}
    serving.until("started in")
    assert connect(serving).ask({"ready": True}) == {"live": True, "ready": True}


def test_a_terminal_shows_what_loads(site: Path, repository: Path) -> None:
    version = add_model(repository, "slow", "load")
    terminal, childs_end = os.openpty()
    command = [sys.executable, "-m", "trivet", "serve", str(repository)]
    process = subprocess.Popen(command, stderr=childs_end, env={**environment(site), "TERM": "xterm"})
    os.close(childs_end)
    shown = b""
    try:
        with (version / "load").open("wb"):
            while b"loading slow version 1" not in shown:
                shown += os.read(terminal, 65536)
        while b"started in" not in shown:
            shown += os.read(terminal, 65536)
    finally:
        process.terminate()
        status = process.wait(60)
        os.close(terminal)
    assert status == 0
    assert b"slow   1        READY" in shown


def test_a_signal_while_models_load_stops_the_server(serve: Serve, repository: Path) -> None:
    version = add_model(repository, "slow", "load")
    serving = serve()
    with (version / "load").open("wb"):
        serving.signal(signal.SIGTERM)
        serving.until("SIGTERM")
    assert serving.end() == 0


def test_a_load_that_does_not_end_does_not_keep_the_process(serve: Serve, repository: Path) -> None:
    version = add_model(repository, "slow", "load")
    serving = serve()
    with (version / "load").open("wb"):
        serving.signal(signal.SIGTERM)
        assert serving.end() == 0
    assert "ending without 'AnyIO worker thread', still at work" in serving.log[-1]["message"]


def test_a_port_that_is_taken_is_named(serve: Serve, repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = serve(f"--line-port={port}")
        assert serving.end() == 1
    assert "cannot listen" in serving.log[-1]["message"]
    assert str(port) in serving.log[-1]["message"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_framework_that_is_not_there", "No module named 'a_framework_that_is_not_there'"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    ],
)
def test_a_plugin_that_breaks_on_import_is_reported_and_skipped(
    code: str, reason: str, serve: Serve, site: Path, repository: Path, connect: Callable[[Serving], Client]
) -> None:
    install(site, "broken-package", "broken_plugin")
    (site / "broken_plugin.py").write_text(code)
    add_model(repository, "fine")
    serving = serve()
    serving.until("started in")
    assert connect(serving).ask({"model": "fine", "x": [1]}) == {"y": [2.0]}
    (warning,) = [entry for entry in serving.log if "broken-package" in entry["message"]]
    assert warning["level"] == "warning"
    assert reason in warning["message"]

    listed = run_trivet(site, "plugins", "--json")
    assert listed.returncode == 1
    plugins = {plugin["package"]: plugin for plugin in json.loads(listed.stdout)["plugins"]}
    assert plugins["gated-package"]["version"] == "1.2.3"
    assert plugins["gated-package"]["error"] is None
    assert reason in plugins["broken-package"]["error"]


@pytest.mark.parametrize(
    ("hook", "offer", "factory", "what"),
    [
        ("protocols", "ProtocolPlugin", "make", "'odd' of package 'odd-package'"),
        ("memory_providers", "MemoryPlugin", "make", "'odd' of package 'odd-package'"),
        ("exporters", "ExporterPlugin", "Odd", "'odd_plugin.Odd'"),
    ],
)
def test_a_plugin_that_raises_when_it_starts_is_named(
    serve: Serve, site: Path, repository: Path, hook: str, offer: str, factory: str, what: str
) -> None:
    install(site, "odd-package", "odd_plugin", "odd")
    (site / "odd_plugin.py").write_text(
        "from trivet import hookimpl, hookspecs, service\n"
        "def make(given): raise RuntimeError('no luck')\n"
        "class Odd(service.Exporter):\n"
        "    def __init__(self, context): pass\n    async def start(self): raise RuntimeError('no luck')\n"
        "    async def stop(self, grace_s): pass\n"
        f"@hookimpl\ndef trivet_{hook}(): return [hookspecs.{offer}(name='odd', factory='odd_plugin:{factory}')]\n"
    )
    serving = serve()
    assert serving.end() == 1
    assert serving.log[-1]["message"].startswith(
        f"{what} failed to start: RuntimeError: no luck; uninstall its package"
    )


def test_two_plugins_of_one_name_stop_the_server(site: Path, repository: Path) -> None:
    install(site, "twin-package", "gated_plugin")
    result = run_trivet(site, "serve", str(repository))
    assert result.returncode == 1
    assert "gated-package" in result.stderr
    assert "twin-package" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_validates_without_serving(site: Path, repository: Path) -> None:
    add_model(repository, "fine")
    good = run_trivet(site, "check", str(repository), "--json")
    assert good.returncode == 0, good.stderr
    (result,) = [entry for entry in json.loads(good.stdout) if entry["model"] == "fine"]
    assert (result["ok"], result["backend"], result["versions"]) == (True, "gated", [1])

    (repository / "wrong" / "1").mkdir(parents=True)
    (repository / "wrong" / "config.pbtxt").write_text("max_batch_size: lots")
    bad = run_trivet(site, "check", str(repository))
    assert bad.returncode == 1
    assert "config.pbtxt:1:17" in bad.stdout
    only = run_trivet(site, "check", str(repository), "--model", "fine")
    assert only.returncode == 0
    assert "wrong" not in only.stdout


def run_trivet(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trivet", *args],
        env=environment(site),
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
