"""Parameters of models and options of the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError
from trivet_backend_trt.settings import Settings, budget_bytes, warn_of_unused

Context = Callable[..., ModelContext]


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'


def test_what_is_left_out_is_tritons_default(context: Context) -> None:
    assert Settings.read(context({})) == Settings()


def test_all_of_them(context: Context) -> None:
    config = f"""{parameter("execution_context_allocation_strategy", "ON_PROFILE_CHANGE")}
    {parameter("weight_streaming_budget", "25%")} {parameter("library", "tensorrt_lean")}
    optimization {{
      priority: PRIORITY_MAX cuda {{ graphs: true busy_wait_events: true }}
    }}"""
    options = {
        "plugins": "/a.so;/b.so",
        "version-compatible": "true",
        "default-max-batch-size": "8",
        "weight_streaming_budget": "auto",
    }
    assert Settings.read(context({}, config, options)) == Settings(
        strategy="ON_PROFILE_CHANGE",
        streaming_budget="25%",
        library="tensorrt_lean",
        plugins=("/a.so", "/b.so"),
        version_compatible=True,
        default_max_batch_size=8,
        graphs=True,
        busy_wait=True,
        priority=-1,
    )


def test_a_model_cannot_allow_itself_to_run_code(context: Context) -> None:
    config = parameter("version-compatible", "true") + parameter("plugins", "/evil.so")
    assert Settings.read(context({}, config)) == Settings()


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("execution_context_allocation_strategy", "DYNAMIC", "one of STATIC, ON_PROFILE_CHANGE, USER_MANAGED"),
    ("weight_streaming_budget", "half", "bytes"),
    ("weight_streaming_budget", "-1", "bytes"),
])  # fmt: skip
def test_a_wrong_parameter_is_refused(name: str, value: str, expected: str, context: Context) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"parameter '{name}' of model 'm' is '{value}', expected {expected}"
    ):
        Settings.read(context({}, parameter(name, value)))


@pytest.mark.parametrize(("name", "value"), [
    ("version-compatible", "maybe"), ("coalesce-request-input", "2"), ("execution-policy", "FAST"),
    ("default-max-batch-size", "-1"),
])  # fmt: skip
def test_a_wrong_option_is_refused(name: str, value: str, context: Context) -> None:
    with pytest.raises(InvalidArgumentError, match=f"parameter '{name}' of --backend-config=tensorrt is '{value}'"):
        Settings.read(context({}, options={name: value}))


@pytest.mark.parametrize(("text", "expected"), [
    ("auto", 40), ("0%", 0), ("25%", 25), ("99.5%", 99), ("100%", 100), ("900%", 100), ("7", 7), ("1K", 100), ("0", 0),
])  # fmt: skip
def test_a_budget_is_never_more_than_the_weights(text: str, expected: int) -> None:
    assert budget_bytes(text, 100, 40) == expected


def test_what_has_no_effect_is_told(context: Context, caplog: Any) -> None:
    config = parameter("weight_streaming_budgets", "1") + "optimization { cuda { graph_spec { batch_size: 1 } } }"
    options = {"coalesce-request-input": "ON", "execution-policy": "DEVICE_BLOCKING", "plugin": "/a.so"}
    made = context({}, config, options)
    warn_of_unused(made, made.logger)
    for part in (
        "'weight_streaming_budgets', which has no effect; did you mean 'weight_streaming_budget'?",
        "'plugin', which has no effect; did you mean 'plugins'?",
        "coalesce-request-input=true has no effect",
        "execution-policy=DEVICE_BLOCKING has no effect",
        "graph_spec without graphs: true",
    ):
        assert part in caplog.text
