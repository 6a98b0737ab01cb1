"""Models that report metrics of their own."""

from __future__ import annotations

import asyncio

import pytest
from bls_models import SHARED, infer, serve, unloaded

pytestmark = pytest.mark.anyio


class TestMetrics:
    BODY = """
        self.metric.increment(given(requests[0])[0])
        return [answer([self.metric.value()])]
    """
    EXTRA = """
        def initialize(self, args):
            family = pb_utils.MetricFamily(name="seen", description="d", kind=pb_utils.MetricFamily.COUNTER)
            self.metric = family.Metric(labels={"model": "shared"})
    """

    async def test_are_shared_by_name_and_gone_with_their_models(self, repository):
        for name in ("one", "two"):
            repository.add(name, self.BODY, extra=self.EXTRA)
        async with serve(repository) as engine:
            assert await infer(engine, "one", 2) == [2]
            assert await infer(engine, "two", 3) == [5]
            (family,) = engine.metrics.families()
            assert [(sample.labels, sample.value) for sample in family.samples()] == [((("model", "shared"),), 5)]
            for name in ("one", "two"):
                assert len(engine.metrics.families()) == 1
                gone = unloaded(engine, name)
                await engine.unload(name)
                await asyncio.wait_for(gone.wait(), 30)
            assert engine.metrics.families() == []

    async def test_messages(self, repository):
        repository.add(
            "wrong",
            """
            kinds = pb_utils.MetricFamily
            counters = kinds("bls_c", "d", kinds.COUNTER)
            histograms = kinds("bls_h", "d", kinds.HISTOGRAM)
            for attempt in (
                lambda: counters.Metric(labels=5),
                lambda: counters.Metric(buckets=[1]),
                lambda: histograms.Metric(),
                lambda: histograms.Metric(buckets=[2, 1]),
                lambda: histograms.Metric(buckets={1}),
                lambda: counters.Metric().increment(-1),
                lambda: counters.Metric().set(1),
                lambda: counters.Metric().observe(1),
                lambda: histograms.Metric(buckets=[1]).value(),
                lambda: kinds("bls_c", "d", kinds.GAUGE),
                lambda: kinds("b-c", "d", kinds.GAUGE),
            ):
                try:
                    attempt()
                except pb_utils.TritonModelException as error:
                    SHARED.setdefault("messages", []).append(str(error))
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "wrong", 0)
        assert SHARED["messages"] == [
            "Failed to create metric. Labels must be a dictionary.",
            "Failed to create metric. Unexpected buckets found.",
            "Failed to create metric. Missing required buckets.",
            "Error when creating Metric: Bucket Boundaries must be strictly sorted",
            "Failed to create metric. Buckets must be a list.",
            (
                "Failed to increment metric value: TRITONSERVER_METRIC_KIND_COUNTER can only be incremented"
                " monotonically by non-negative values."
            ),
            "Failed to set metric value: TRITONSERVER_METRIC_KIND_COUNTER does not support Set",
            "Failed to observe metric value: TRITONSERVER_METRIC_KIND_COUNTER does not support Observe",
            "Failed to get metric value: TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Value",
            "Error when creating MetricFamily: Family name already exists",
            "Error when creating MetricFamily: Invalid metric name",
        ]
