"""Options of tracing, and settings that change while a server runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError
from trivet.trace_settings import TraceOptions, TraceSettings, trace_options
from trivet.traced import Trace
from trivet.tracing import Sampler, TraceSink, Tracing


class Nowhere(TraceSink):
    def add(self, trace: Trace) -> None:
        pass


def tracing(**settings: Any) -> Tracing:
    return Tracing(TraceOptions(settings=TraceSettings(file="f", **settings)), Nowhere())


def test_options_are_tritonservers() -> None:
    options = trace_options(
        [
            *("mode=opentelemetry", "level=TIMESTAMPS", "level=TENSORS", "rate=5", "count=7"),
            *(
                "triton,file=/tmp/t",
                "triton,log-frequency=3",
                "opentelemetry,url=http://x/",
                "opentelemetry,resource=a=b",
            ),
        ]
    )
    assert options == TraceOptions(
        "opentelemetry",
        TraceSettings(frozenset({"TIMESTAMPS", "TENSORS"}), 5, 7, 3, "/tmp/t"),
        {"opentelemetry": [("url", "http://x/"), ("resource", "a=b")]},
    )


def test_older_options_count_where_the_newer_one_says_nothing() -> None:
    options = trace_options(["rate=5"], file="f", levels=["MAX"], rate=1, count=2, log_frequency=3)
    assert options.settings == TraceSettings(frozenset({"TIMESTAMPS"}), 5, 2, 3, "f")


def test_nothing_is_traced_unless_asked_for() -> None:
    assert trace_options([]) == TraceOptions()
    assert not Tracing(TraceOptions(), Nowhere()).on


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("rate", "expected KEY=VALUE or MODE,KEY=VALUE"),
        ("=1", "expected KEY=VALUE or MODE,KEY=VALUE"),
        ("rate=", "expected KEY=VALUE or MODE,KEY=VALUE"),
        (",rate=1", "expected KEY=VALUE or MODE,KEY=VALUE"),
        ("foo=1", "there is no setting 'foo'"),
        ("file=x", "triton,KEY=VALUE"),
        ("triton,rate=1", "there is no setting 'rate'"),
        ("jaeger,url=x", "there is no mode 'jaeger'"),
        ("mode=jaeger", "expected triton or opentelemetry"),
        ("level=ALL", "trace level 'ALL': expected OFF, TIMESTAMPS or TENSORS"),
        ("rate=x", "trace rate 'x': expected a number, 0 or more"),
        ("rate=-1", "expected a number, 0 or more"),
        ("count=-2", "expected a number, -1 or more"),
        ("triton,log-frequency=1.5", "trace log-frequency '1.5'"),
    ],
)
def test_what_is_malformed_is_quoted(config: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        trace_options([config])
    assert problem in str(raised.value)


def test_a_model_has_its_own_where_it_was_given_them() -> None:
    settings = tracing(rate=1000)
    settings.update("m", {"rate": 3})
    settings.update("", {"rate": 8, "log_frequency": 2})
    assert (settings.settings("m").rate, settings.settings("m").log_frequency) == (3, 2)
    assert settings.settings("other").rate == 8
    settings.update("m", {"rate": None})
    assert settings.settings("m") == settings.settings()
    settings.update("", {"rate": None, "log_frequency": None})
    assert settings.settings() == TraceSettings(file="f")


def test_tracing_is_on_while_anything_could_be_traced() -> None:
    settings = tracing()
    assert not settings.on
    settings.update("m", {"level": frozenset({"TIMESTAMPS"})})
    assert settings.on
    settings.update("m", {"level": frozenset()})
    assert not settings.on


def test_a_level_without_a_file_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert not Tracing(trace_options(["level=TIMESTAMPS"]), Nowhere()).on
    assert "nothing is traced, though a trace level is given: trace file name is not given" in caplog.text
    assert Tracing(trace_options(["level=TIMESTAMPS", "triton,file=f"]), Nowhere()).on
    assert len(caplog.records) == 1


def test_a_refused_change_changes_nothing() -> None:
    settings = Tracing(TraceOptions(), Nowhere())
    before = settings.settings()
    with pytest.raises(InvalidArgumentError, match="trace file name is not given"):
        settings.update("", {"level": frozenset({"TIMESTAMPS"}), "rate": 1})
    assert settings.settings() == before
    with pytest.raises(InvalidArgumentError, match="sample rate must be non-zero"):
        tracing().update("", {"level": frozenset({"TIMESTAMPS"}), "rate": 0})


def test_a_model_that_has_traced_its_count_keeps_no_other_settings_from_changing() -> None:
    settings = tracing(level=frozenset({"TIMESTAMPS"}))
    settings.update("m", {"count": 1, "rate": 1})
    assert settings._samplers["m"].choose()
    settings.update("", {"rate": 4})
    assert settings.settings().rate == 4
    assert settings.settings("m").count == 0


@given(st.integers(0, 7), st.integers(-1, 9), st.integers(0, 60))
def test_one_in_so_many_is_chosen_until_so_many_are(rate: int, count: int, requests: int) -> None:
    sampler = Sampler(TraceSettings(rate=rate, count=count))
    chosen = [index for index in range(1, requests + 1) if sampler.choose()]
    expected = [index for index in range(1, requests + 1) if rate and index % rate == 0]
    assert chosen == (expected if count < 0 else expected[:count])
