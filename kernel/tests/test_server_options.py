"""Settings that no server can have are refused before it opens anything."""

from __future__ import annotations

from typing import Any

import pytest
from trivet.errors import InvalidArgumentError
from trivet.options import Settings
from trivet.server_options import ALL_OPTIONS, cache_config, check_settings


def settings(**changed: Any) -> Settings:
    defaults = {option.key: [] if option.multiple else option.default for option in ALL_OPTIONS}
    return Settings({**defaults, "http_port": 8000, "reuse_grpc_port": True, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exit_timeout_secs": -1}, "--exit-timeout-secs=-1: expected at least 0"),
        ({"exit_timeout_secs": 10**20}, "--exit-timeout-secs=100000000000000000000: expected 0 to 2147483647"),
        ({"model_load_thread_count": 0}, "--model-load-thread-count=0: expected at least 1"),
        ({"http_port": 65536}, "--http-port=65536: expected 0 to 65535"),
        ({"metrics_port": -1}, "--metrics-port=-1: expected 0 to 65535"),
        ({"load_model": ["m"]}, "Use of '--load-model' requires"),
    ],
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_settings(settings(**changed))
    assert raised.value.message.startswith(message)


def test_what_is_usual_passes() -> None:
    check_settings(settings())
    check_settings(settings(http_port=0, metrics_port=65535, model_control_mode="explicit", load_model=["*"]))


def test_the_response_cache_is_configured_setting_by_setting() -> None:
    given = ["redis,host=example.org", "redis,port=6379", "redis,password=a=b,c"]
    assert cache_config(given) == {"redis": {"host": "example.org", "port": "6379", "password": "a=b,c"}}
    assert cache_config([]) == {}


def test_the_older_option_means_the_local_cache() -> None:
    assert cache_config([], 1048576) == {"local": {"size": "1048576"}}


@pytest.mark.parametrize(
    ("values", "byte_size", "message"),
    [
        (
            ["local"],
            None,
            "No cache specified. --cache-config option format is <cache name>,<setting>=<value>. Got local",
        ),
        ([",size=1"], None, "No cache specified."),
        (["local,size"], None, "--cache-config option format is <cache name>,<setting>=<value>. Got local,size"),
        (["local,=1"], None, "--cache-config option format is"),
        (["local,size=1024"], 1024, "Incompatible flags --response-cache-byte-size and --cache-config both provided."),
    ],
)
def test_a_malformed_cache_setting_is_quoted(values: list[str], byte_size: int | None, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        cache_config(values, byte_size)
    assert raised.value.message.startswith(message)
