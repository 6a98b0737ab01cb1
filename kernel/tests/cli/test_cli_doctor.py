"""``trivet doctor``: what is there, what is missing, who holds a port, and an exit status to match."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from trivet import hookimpl
from trivet.cli import cli
from trivet.cli.sockets import listener_of
from trivet.hookspecs import BackendPlugin, HttpTransportPlugin, ProtocolPlugin
from trivet.options import Option
from trivet.plugins import InstalledPlugin, PluginRegistry


class Sample:
    """A server's worth of plugins, one port, one framework."""

    def __init__(self, port: int, framework: str = "json") -> None:
        self.port = port
        self.framework = framework

    @hookimpl
    def trivet_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="sample", factory="a:b", requires=(self.framework,))]

    @hookimpl
    def trivet_protocols(self) -> list[ProtocolPlugin]:
        options = (Option("sample-address", default="127.0.0.1"), Option("sample-port", "integer", self.port))
        return [ProtocolPlugin(name="sample", factory="a:b", options=options)]

    @hookimpl
    def trivet_http_transports(self) -> list[HttpTransportPlugin]:
        return [HttpTransportPlugin(name="sample", factory="a:b")]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def doctor(registry: PluginRegistry, path: str = "/nowhere") -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(cli, ["doctor", "--json"], obj=registry, env={"PATH": path}, catch_exceptions=False)
    return result.exit_code, {finding["what"]: finding for finding in json.loads(result.output)}


def test_a_machine_that_has_everything(free_port: int) -> None:
    status, findings = doctor(PluginRegistry.of(sample=Sample(free_port)))
    assert status == 0
    assert findings["json"]["status"] == "ok"
    assert findings["NVIDIA"]["status"] == "note"
    assert findings[f"sample-port {free_port}"] == {
        "area": "Ports",
        "what": f"sample-port {free_port}",
        "status": "ok",
        "details": "free on 127.0.0.1",
        "fix": "",
    }


def test_a_missing_framework_is_a_problem_with_a_way_out(free_port: int) -> None:
    status, findings = doctor(PluginRegistry.of(sample=Sample(free_port, "framework_that_is_not_there")))
    assert status == 1
    assert findings["framework_that_is_not_there"]["details"] == "not installed; backend sample needs it"
    assert findings["framework_that_is_not_there"]["fix"] == "pip install framework_that_is_not_there"
    assert "framework_that_is_not_there" not in sys.modules


def test_one_of_several_frameworks_is_enough(free_port: int) -> None:
    status, findings = doctor(PluginRegistry.of(sample=Sample(free_port, "not_there|json|csv")))
    assert status == 0
    assert "not_there" not in findings
    assert findings["json"]["status"] == findings["csv"]["status"] == "ok"
    status, findings = doctor(PluginRegistry.of(sample=Sample(free_port, "not_there|nor_this")))
    assert status == 1
    assert findings["not_there or nor_this"]["fix"] == "pip install not_there"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who holds a port")
def test_a_taken_port_names_who_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, findings = doctor(PluginRegistry.of(sample=Sample(port)))
        finding = findings[f"sample-port {port}"]
    assert status == 1
    assert f"held by process {os.getpid()} (" in finding["details"]
    assert finding["fix"] == "stop it, or choose another port with --sample-port"
    assert listener_of(port) == ""


def test_nothing_installed_says_what_to_install() -> None:
    status, findings = doctor(PluginRegistry([]))
    assert status == 1
    assert findings["protocol"]["fix"] == "pip install trivet-protocol-kserve-v2"
    assert findings["HTTP transport"]["fix"] == "pip install trivet-transport-http"
    assert findings["backend"]["fix"] == "pip install 'trivet-backend-onnx[cpu]'"


def test_a_broken_plugin_is_a_problem() -> None:
    status, findings = doctor(PluginRegistry([InstalledPlugin("x", "broken-package", "1", error="ImportError: y")]))
    assert status == 1
    assert findings["broken-package"]["details"] == "ImportError: y"


@pytest.mark.parametrize(
    ("script", "what", "status", "details"),
    [
        ("echo '0, NVIDIA H100, 81559 MiB, 550.54'", "GPU 0", "ok", "NVIDIA H100, 81559 MiB, driver 550.54"),
        ("echo 'Failed to initialize NVML'; exit 9", "NVIDIA", "problem", "Failed to initialize NVML"),
        ("true", "NVIDIA", "note", "the driver is here but shows no GPU"),
    ],
)
def test_gpus_are_what_nvidia_smi_says(
    tmp_path: Path, free_port: int, script: str, what: str, status: str, details: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    _, findings = doctor(PluginRegistry.of(sample=Sample(free_port)), str(tmp_path))
    assert findings[what]["status"] == status
    assert findings[what]["details"] == details


def test_the_table_shows_problems_and_fixes() -> None:
    result = CliRunner().invoke(cli, ["doctor"], obj=PluginRegistry([]), env={"PATH": "/nowhere"})
    assert result.exit_code == 1
    assert "-> pip install trivet-protocol-kserve-v2" in result.output
