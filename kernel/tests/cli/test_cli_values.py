"""Option values: conversion, precedence of the sources, and messages that name where a bad value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.cli.values import Source, ValueProblem, convert, from_environment, from_file, resolve
from trivet.options import Option

PORT = Option("http-port", "integer", 8000)
ADDRESS = Option("http-address", default="0.0.0.0")
STRICT = Option("strict-readiness", "boolean", True)
RATE = Option("rate", "number", 1.0)
MODE = Option("model-control-mode", "choice", "none", choices=("none", "explicit"))
FILE = Option("log-file", "path")
REPOSITORY = Option("model-repository", multiple=True)
BACKEND = Option("backend-config", multiple=True)
CACHE = Option("cache-config", multiple=True)
OPTIONS = (PORT, ADDRESS, STRICT, RATE, MODE, FILE, REPOSITORY, BACKEND, CACHE)


def toml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("option", "raw", "value"),
    [
        (PORT, "8123", 8123),
        (PORT, 8123, 8123),
        (STRICT, "FALSE", False),
        (STRICT, "on", True),
        (STRICT, "0", False),
        (STRICT, True, True),
        (RATE, "2.5", 2.5),
        (RATE, 2, 2.0),
        (MODE, "explicit", "explicit"),
        (ADDRESS, "::1", "::1"),
        (ADDRESS, 5, "5"),
    ],
)
def test_values_are_converted(option: Option, raw: Any, value: Any) -> None:
    converted = convert(option, raw)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("option", "raw", "problem"),
    [
        (PORT, "80x", "'80x' is not an integer"),
        (PORT, 80.5, "80.5 is not an integer"),
        (PORT, True, "True is not an integer"),
        (PORT, [1], r"\[1\] is not an integer"),
        (RATE, "fast", "'fast' is not a number"),
        (STRICT, "maybe", "'maybe' is not a boolean; use true or false"),
        (MODE, "auto", "'auto' is not one of none, explicit"),
        (MODE, "poll", "does not have yet"),
        (ADDRESS, ["a"], "is not a text"),
    ],
)
def test_bad_values_are_refused(option: Option, raw: Any, problem: str) -> None:
    with pytest.raises(ValueProblem, match=problem):
        convert(option, raw)


@given(st.integers())
def test_every_integer_survives_its_text(number: int) -> None:
    assert convert(PORT, str(number)) == number


def test_the_command_line_wins_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    command_line = Source({"http_port": 1}, {"http_port": "--http-port"})
    environment = from_environment(OPTIONS, {"TRIVET_HTTP_PORT": "2", "TRIVET_HTTP_ADDRESS": "::1"})
    file = from_file(OPTIONS, toml(tmp_path / "t.toml", 'http-port = 3\nhttp_address = "::2"\nrate = 7'))
    settings = resolve(OPTIONS, [command_line, environment, file]).settings
    assert (settings["http_port"], settings["http_address"], settings["rate"]) == (1, "::1", 7.0)
    assert settings["strict_readiness"] is True
    assert settings["model_repository"] == []


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(click.UsageError, match="environment variable TRIVET_HTTP_PORT: 'x' is not an integer"):
        resolve(OPTIONS, [from_environment(OPTIONS, {"TRIVET_HTTP_PORT": "x"})])


def test_a_bad_value_in_the_file_is_named(tmp_path: Path) -> None:
    path = toml(tmp_path / "t.toml", "http-port = true")
    with pytest.raises(click.UsageError, match=r"t\.toml: 'http-port': True is not an integer"):
        resolve(OPTIONS, [from_file(OPTIONS, path)])


def test_an_overruled_value_is_not_complained_about() -> None:
    environment = from_environment(OPTIONS, {"TRIVET_HTTP_PORT": "x"})
    assert resolve(OPTIONS, [Source({"http_port": 5}, {}), environment]).settings["http_port"] == 5


def test_variables_with_several_values() -> None:
    names = ["/a", "/b c"]
    spaces = from_environment(OPTIONS, {"TRIVET_MODEL_REPOSITORY": " /a\n/b "})
    array = from_environment(OPTIONS, {"TRIVET_MODEL_REPOSITORY": '["/a", "/b c"]'})
    assert resolve(OPTIONS, [spaces]).settings["model_repository"] == ["/a", "/b"]
    assert resolve(OPTIONS, [array]).settings["model_repository"] == names
    with pytest.raises(click.UsageError, match="TRIVET_MODEL_REPOSITORY: not a TOML array"):
        from_environment(OPTIONS, {"TRIVET_MODEL_REPOSITORY": "[oops"})


def test_a_misspelled_variable_is_pointed_out_and_foreign_ones_are_not() -> None:
    source = from_environment(OPTIONS, {"TRIVET_HTTP_PROT": "1", "TRIVET_SERVICE_HOST": "10.0.0.1", "HTTP_PORT": "9"})
    assert source.values == {}
    assert source.ignored == ("environment variable TRIVET_HTTP_PROT is not an option; did you mean TRIVET_HTTP_PORT?",)


def test_variables_that_kubernetes_sets_for_a_service_are_ignored_with_a_warning() -> None:
    resolved = resolve(OPTIONS, [from_environment(OPTIONS, {"TRIVET_HTTP_PORT": "tcp://10.3.4.5:8000"})])
    assert resolved.settings["http_port"] == 8000
    assert "enableServiceLinks" in resolved.warnings[0]


def test_an_unknown_key_in_the_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="unknown option 'http-prot'; did you mean 'http-port'"):
        from_file(OPTIONS, toml(tmp_path / "t.toml", "http-prot = 1"))


def test_a_key_given_in_both_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="given twice"):
        from_file(OPTIONS, toml(tmp_path / "t.toml", "http-port = 1\nhttp_port = 2"))


def test_broken_or_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"t\.toml: not valid TOML"):
        from_file(OPTIONS, toml(tmp_path / "t.toml", "http-port ="))
    with pytest.raises(click.UsageError, match=r"missing\.toml: No such file"):
        from_file(OPTIONS, tmp_path / "missing.toml")


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    text = 'log-file = "trivet.log"\nmodel-repository = ["models", "/absolute", "s3://bucket/models"]'
    settings = resolve(OPTIONS, [from_file(OPTIONS, toml(tmp_path / "t.toml", text))]).settings
    assert settings["log_file"] == str(tmp_path / "trivet.log")
    assert settings["model_repository"] == [str(tmp_path / "models"), "/absolute", "s3://bucket/models"]


def test_cache_settings_may_be_a_table(tmp_path: Path) -> None:
    text = "[cache-config.redis]\nhost = 'example.org'\nport = 6379"
    settings = resolve(OPTIONS, [from_file(OPTIONS, toml(tmp_path / "t.toml", text))]).settings
    assert settings["cache_config"] == ["redis,host=example.org", "redis,port=6379"]


def test_backend_settings_may_be_tables(tmp_path: Path) -> None:
    text = "[backend-config.onnxruntime]\nintra_op_thread_count = 1\nenable_mem_arena = true"
    settings = resolve(OPTIONS, [from_file(OPTIONS, toml(tmp_path / "t.toml", text))]).settings
    assert settings["backend_config"] == ["onnxruntime,intra_op_thread_count=1", "onnxruntime,enable_mem_arena=true"]
    with pytest.raises(click.UsageError, match="expected a table"):
        from_file(OPTIONS, toml(tmp_path / "u.toml", "[backend-config]\nonnxruntime = 1"))
