"""The command line as a whole: which options are known, how booleans are spelled, what is refused and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from trivet import hookimpl
from trivet.cli import cli
from trivet.cli import serve as serve_module
from trivet.cli.tritonserver import NOT_YET
from trivet.hookspecs import BackendPlugin, ProtocolPlugin
from trivet.options import Option, Settings
from trivet.plugins import InstalledPlugin, PluginRegistry
from trivet.server_options import ALL_OPTIONS


class Sample:
    """A plugin with options and a command of its own."""

    @hookimpl
    def trivet_protocols(self) -> list[ProtocolPlugin]:
        options = (
            Option("sample-port", "integer", 9000, "Port of the sample."),
            Option("sample-fast", "boolean", False, "Be fast."),
        )
        return [ProtocolPlugin(name="sample", factory="nowhere:nothing", options=options, description="A sample.")]

    @hookimpl
    def trivet_cli_commands(self) -> list[click.Command]:
        return [click.Command("greet", callback=lambda: click.echo("hello"), short_help="Say hello.")]


REGISTRY = PluginRegistry.of(sample=Sample())


def invoke(*args: str, registry: PluginRegistry = REGISTRY, **kwargs: Any) -> Result:
    return CliRunner().invoke(cli, args, obj=registry, catch_exceptions=False, **kwargs)


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs ``trivet serve`` up to where the server would start, and gives the settings it would start with."""
    started: list[Settings] = []

    def record(registry: PluginRegistry, resolved: Any) -> int:
        started.append(resolved.settings)
        return 0

    monkeypatch.setattr(serve_module, "serve_until_signalled", record)
    monkeypatch.chdir(tmp_path)

    def run(*args: str, **kwargs: Any) -> Settings:
        result = invoke("serve", *args, **kwargs)
        assert result.exit_code == 0, result.output
        return started.pop()

    return run


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ((), True),
        (("--exit-on-error=false",), False),
        (("--exit-on-error", "false"), False),
        (("--exit-on-error=0",), False),
        (("--exit-on-error",), True),
        (("--exit-on-error=True",), True),
    ],
)
def test_booleans_are_spelled_as_for_tritonserver(settings_of: Any, args: tuple[str, ...], value: bool) -> None:
    settings = settings_of(*args, "models")
    assert settings["exit_on_error"] is value
    assert settings["model_repository"] == ["models"]


def test_plugin_options_are_options_of_serve(settings_of: Any) -> None:
    settings = settings_of("m", "--sample-port", "1", "--sample-fast")
    assert (settings["sample_port"], settings["sample_fast"]) == (1, True)
    assert settings_of("m", env={"TRIVET_SAMPLE_PORT": "2"})["sample_port"] == 2


def test_repositories_may_be_positional_or_options(settings_of: Any) -> None:
    settings = settings_of("a", "b", "--model-repository=c", "--model-store", "d")
    assert settings["model_repository"] == ["a", "b", "c", "d"]


def test_a_trivet_toml_in_the_current_folder_is_read(settings_of: Any) -> None:
    Path("trivet.toml").write_text('model-repository = "models"\nsample-port = 3')
    assert settings_of()["sample_port"] == 3
    assert settings_of("--sample-port=4")["sample_port"] == 4
    Path("other.toml").write_text('model-repository = "models"\nsample-port = 5')
    assert settings_of("--config", "other.toml")["sample_port"] == 5
    assert settings_of(env={"TRIVET_CONFIG": "other.toml"})["sample_port"] == 5


def test_an_option_value_may_look_like_an_option(settings_of: Any) -> None:
    assert settings_of("m", "--id", "--trace-file")["id"] == "--trace-file"


def test_serve_without_a_repository_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("serve")
    assert result.exit_code == 2
    assert "trivet serve REPOSITORY" in result.output


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_options_that_only_tritonserver_has_are_refused_by_name(name: str) -> None:
    result = invoke("serve", "m", f"--{name}=1")
    assert result.exit_code == 2
    assert f"--{name} is an option of tritonserver that Trivet does not offer: {NOT_YET[name]}" in result.output


def test_no_option_is_both_there_and_refused() -> None:
    assert not {option.name for option in ALL_OPTIONS} & NOT_YET.keys()


def test_a_plugin_that_defines_an_option_takes_it_over(settings_of: Any) -> None:
    class Metrics:
        @hookimpl
        def trivet_protocols(self) -> list[ProtocolPlugin]:
            return [ProtocolPlugin(name="m", factory="a:b", options=(Option("metrics-port", "integer", 8002),))]

    settings = settings_of("m", "--metrics-port=1", registry=PluginRegistry.of(metrics=Metrics()))
    assert settings["metrics_port"] == 1


def test_bad_values_name_the_option() -> None:
    result = invoke("serve", "m", "--sample-port=x")
    assert result.exit_code == 2
    assert "'--sample-port': 'x' is not an integer" in result.output
    assert "does not have yet" in invoke("serve", "m", "--model-control-mode=poll").output


def test_an_unknown_option_gets_clicks_message() -> None:
    result = invoke("serve", "m", "--nonsense=1")
    assert result.exit_code == 2
    assert "No such option" in result.output


def test_help_of_serve_is_grouped_by_plugin() -> None:
    output = invoke("serve", "--help").output
    headings = [line for line in output.splitlines() if line and not line.startswith(" ")]
    for heading in ("Options:", "Server:", "Model repository:", "Backends:", "Logging:", "Plugin sample:"):
        assert heading in headings
    assert output.index("Plugin sample:") < output.index("--sample-port")


def test_plugin_commands_are_commands() -> None:
    assert invoke("greet").output == "hello\n"
    assert "greet    Say hello." in invoke("--help").output


def test_a_plugin_cannot_take_a_kernel_command_over() -> None:
    class Thief:
        @hookimpl
        def trivet_cli_commands(self) -> list[click.Command]:
            return [click.Command("plugins", callback=lambda: click.echo("mine"))]

    assert "mine" not in invoke("plugins", registry=PluginRegistry.of(thief=Thief())).output


def test_an_unknown_command_points_to_plugins_that_failed_to_load() -> None:
    broken = PluginRegistry([InstalledPlugin("kserve", "trivet-protocol-kserve-v2", "1.0", error="ImportError: grpc")])
    result = invoke("infer", "x", registry=broken)
    assert result.exit_code == 2
    assert "trivet-protocol-kserve-v2" in result.output


def test_plugins_lists_what_is_offered() -> None:
    result = invoke("plugins")
    assert result.exit_code == 0
    assert "sample" in result.output
    assert "A sample." in result.output
    listed = json.loads(invoke("plugins", "--json").output)
    assert listed["plugins"][0]["offers"][0] == {
        "family": "protocol",
        "name": "sample",
        "description": "A sample.",
        "options": ["--sample-port", "--sample-fast"],
    }
    assert listed["plugins"][0]["commands"] == ["greet"]


def test_plugins_reports_what_failed_to_load_and_conflicts() -> None:
    class One:
        @hookimpl
        def trivet_backends(self) -> list[BackendPlugin]:
            return [BackendPlugin(name="same", factory="a:b")]

    registry = PluginRegistry(
        [
            *PluginRegistry.of(one=One(), two=One()).plugins,
            InstalledPlugin("broken", "broken-package", "3.0", error="ModuleNotFoundError: No module named 'x'"),
        ]
    )
    result = invoke("plugins", registry=registry)
    assert result.exit_code == 1
    assert "failed to load: ModuleNotFoundError: No module named 'x'" in result.stdout
    assert "two plugins offer the backend 'same': package 'one' and package 'two'" in result.stderr
    assert "package 'one' and package 'two'" in invoke("serve", "m", registry=registry).output


def test_version() -> None:
    assert invoke("--version").output.startswith("trivet 0.")
