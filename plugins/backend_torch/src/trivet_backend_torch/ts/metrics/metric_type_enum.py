"""``ts.metrics.metric_type_enum``: kinds of metric."""

from __future__ import annotations

import enum


class MetricTypes(enum.Enum):
    """What an update does: add, set, or count in buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
