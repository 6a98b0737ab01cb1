"""Durations sorted into buckets, whether one by one or many at a time."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from trivet.histogram import PENDING, SECONDS, Histogram
from trivet.inference import InferenceRequest
from trivet.statistics import ModelStatistics


@pytest.mark.parametrize("count", [1, 63, 64, 5000])
def test_every_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed(count: int) -> None:
    histogram = Histogram((0.5, 2.0), unit_ns=1e6)
    durations = [499_999, 500_000, 500_001, 2_000_000, 7_000_000] * count
    histogram.pending.extend(durations)
    assert histogram.counts == [2 * count, 2 * count, count]
    assert histogram.total_ns == sum(durations)
    # What was sorted is not counted twice.
    histogram.pending.append(1)
    assert histogram.counts == [2 * count + 1, 2 * count, count]


def test_an_exemplar_is_the_newest_of_its_bucket() -> None:
    histogram = Histogram()
    for ns, context in ((600_000, "first"), (900_000, "second"), (3, "other")):
        histogram.pending.append(ns)
        histogram.exemplify(ns, context)
    assert {place: (one.trace_context, one.ns) for place, one in histogram.exemplars.items()} == {
        0: ("other", 3),
        1: ("second", 900_000),
    }


def test_statistics_distribute_what_they_count() -> None:
    statistics = ModelStatistics("m", "1")
    for number in range(PENDING + 10):
        request = InferenceRequest("m", {}, received_ns=1)
        request.queued_ns = request.compute_start_ns = request.input_end_ns = request.infer_end_ns = 2
        request.compute_end_ns = 3
        request.trace_context = {"traceparent": str(number)}
        statistics.request_succeeded(request, 1 + 700_000)
        assert len(statistics.request_times.pending) < PENDING
    assert statistics.request_times.counts[bisect_left(SECONDS, 0.0007)] == statistics.success.count == PENDING + 10
    assert statistics.request_times.total_ns == statistics.success.ns
    assert statistics.queue_times.counts[0] == statistics.success.count
    assert statistics.queue_times.total_ns == statistics.queue.ns == 0
    (newest,) = statistics.request_times.exemplars.values()
    assert newest.trace_context == {"traceparent": str(PENDING + 9)}
