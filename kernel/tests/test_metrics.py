"""Metrics that models keep themselves."""

from __future__ import annotations

import gc
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import AlreadyExistsError, InvalidArgumentError, UnimplementedError
from trivet.metrics import Metric, MetricKind, MetricRegistry, Sample


@pytest.fixture
def registry() -> MetricRegistry:
    return MetricRegistry()


def metric(registry: MetricRegistry, kind: MetricKind, buckets: list[float] | None = None) -> Metric:
    return registry.family("m", "a metric", kind).metric({"a": "1"}, buckets)


def test_a_counter_only_grows(registry: MetricRegistry) -> None:
    counter = metric(registry, MetricKind.COUNTER)
    counter.increment(2)
    counter.increment(0)
    for value in (-1, math.nan):
        with pytest.raises(InvalidArgumentError, match="can only be incremented monotonically by non-negative values"):
            counter.increment(value)
    assert counter.value == 2
    with pytest.raises(UnimplementedError, match="TRITONSERVER_METRIC_KIND_COUNTER does not support Set"):
        counter.set(1)


def test_a_gauge_goes_up_and_down(registry: MetricRegistry) -> None:
    gauge = metric(registry, MetricKind.GAUGE)
    gauge.increment(2)
    gauge.increment(-5)
    assert gauge.value == -3
    gauge.set(7.5)
    assert gauge.sample() == Sample((("a", "1"),), 7.5)
    with pytest.raises(UnimplementedError, match="GAUGE does not support Observe"):
        gauge.observe(1)


@given(
    st.lists(st.floats(-10, 10), unique=True, max_size=5).map(sorted),
    st.lists(st.one_of(st.floats(-20, 20), st.just(math.inf))),
)
def test_a_histogram_counts_what_is_not_above_each_bound(bounds: list[float], observed: list[float]) -> None:
    histogram = metric(MetricRegistry(), MetricKind.HISTOGRAM, bounds)
    for value in observed:
        histogram.observe(value)
    sample = histogram.sample()
    assert sample.buckets == tuple((bound, sum(value <= bound for value in observed)) for bound in (*bounds, math.inf))
    assert sample.value == sum(observed)


def test_a_histogram_has_no_one_value(registry: MetricRegistry) -> None:
    histogram = metric(registry, MetricKind.HISTOGRAM, [1, 2])
    for use, name in ((lambda: histogram.value, "Value"), (lambda: histogram.set(1), "Set")):
        with pytest.raises(UnimplementedError, match=f"HISTOGRAM does not support {name}"):
            use()
    with pytest.raises(UnimplementedError, match="HISTOGRAM does not support Increment"):
        histogram.increment(1)


@pytest.mark.parametrize("buckets", [[2, 1], [1, 1], [math.nan], [1, math.nan, 2]])
def test_bounds_are_strictly_ascending(registry: MetricRegistry, buckets: list[float]) -> None:
    with pytest.raises(InvalidArgumentError, match="Bucket Boundaries must be strictly sorted"):
        metric(registry, MetricKind.HISTOGRAM, buckets)


def test_infinity_is_always_the_last_bound(registry: MetricRegistry) -> None:
    assert metric(registry, MetricKind.HISTOGRAM, [1, math.inf]).bounds == (1,)


def test_equal_labels_are_one_metric(registry: MetricRegistry) -> None:
    family = registry.family("m", "a metric", MetricKind.COUNTER)
    assert family.metric({"a": "1", "b": "2"}) is family.metric({"b": "2", "a": "1"})
    assert family.metric({"a": "2"}) is not family.metric({"a": "1"})
    assert next(sample.labels for sample in family.samples()) == (("a", "1"), ("b", "2"))


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "__reserved", "é"])
def test_names_of_labels(registry: MetricRegistry, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid label name"):
        registry.family("m", "", MetricKind.COUNTER).metric({name: "1"})


def test_a_histogram_has_a_label_of_its_own(registry: MetricRegistry) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid label name"):
        registry.family("h", "", MetricKind.HISTOGRAM).metric({"le": "1"}, [1])
    assert registry.family("g", "", MetricKind.GAUGE).metric({"le": "1"}).labels == (("le", "1"),)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é"])
def test_names_of_families(registry: MetricRegistry, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid metric name"):
        registry.family(name, "", MetricKind.COUNTER)


def test_a_family_is_shared_and_gone_with_its_last_holder(registry: MetricRegistry) -> None:
    one = registry.family("m", "first", MetricKind.COUNTER)
    assert registry.family("m", "second", MetricKind.COUNTER) is one
    assert one.description == "first"
    with pytest.raises(AlreadyExistsError, match="Family name already exists"):
        registry.family("m", "first", MetricKind.GAUGE)
    registry.release(one)
    assert registry.families() == [one]
    registry.release(one)
    assert registry.families() == []
    assert registry.family("m", "third", MetricKind.GAUGE).kind is MetricKind.GAUGE


def test_no_increment_is_lost_between_threads(registry: MetricRegistry) -> None:
    counter = metric(registry, MetricKind.COUNTER)

    def work() -> None:
        for _ in range(2000):
            counter.increment(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert counter.value == 8000
