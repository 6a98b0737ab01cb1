from __future__ import annotations

from trivet.testing.conformance import SchedulerConformance


class TestDynamicBatching(SchedulerConformance):
    scheduler = "dynamic_batching"
    config = "dynamic_batching { max_queue_delay_microseconds: 1000 }"
