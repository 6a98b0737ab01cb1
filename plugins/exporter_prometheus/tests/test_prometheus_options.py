"""What the options say, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from trivet.errors import InvalidArgumentError
from trivet.options import Settings
from trivet_exporter_prometheus.options import OPTIONS, MetricsSettings


def read(*config: str, **settings: Any) -> MetricsSettings:
    return MetricsSettings.of(Settings.of(OPTIONS, metrics_config=list(config), **settings))


def test_the_defaults_are_tritons() -> None:
    assert read() == MetricsSettings(
        counter_latencies=True,
        histogram_latencies=False,
        summary_latencies=False,
        quantiles=(0.5, 0.9, 0.95, 0.99, 0.999),
        gpu=True,
        cpu=True,
        interval_s=2.0,
    )


def test_each_kind_of_latency_is_chosen() -> None:
    found = read("counter_latencies=false", "histogram_latencies=TRUE", "summary_latencies=1")
    assert (found.counter_latencies, found.histogram_latencies, found.summary_latencies) == (False, True, True)
    assert read("summary_quantiles=0.5:0.05,0.99:0.001,1").quantiles == (0.5, 0.99, 1)
    assert read(metrics_interval_ms=100, allow_gpu_metrics=False).interval_s == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary_latencies=maybe", "expected 'summary_latencies=true' or 'summary_latencies=false'"),
        ("summary_latencies", "expected 'summary_latencies=true'"),
        ("latencies=true", "expected NAME=VALUE, where NAME is counter_latencies,"),
        ("summary_quantiles=2:0.1", "expected QUANTILE:ERROR"),
        ("summary_quantiles=0.5:x", "expected QUANTILE:ERROR"),
        ("summary_quantiles=", "expected QUANTILE:ERROR"),
        ("summary_quantiles=nan", "expected QUANTILE:ERROR"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^--metrics-config=") as caught:
        read(text)
    assert message in caught.value.message


def test_an_interval_that_cannot_be() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^--metrics-interval-ms=0: expected more than 0$"):
        read(metrics_interval_ms=0)
