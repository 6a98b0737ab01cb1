"""Families into the text that Prometheus reads, in either of its formats.

The classic format is written here: the client library ends the name of every counter with ``_total`` there, and
Triton's have no such ending. OpenMetrics, which demands it, gets Triton's counters as of unknown type under their own
names, so that queries are the same in both.

Source: Prometheus' "Exposition formats"; OpenMetrics 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.utils import floatToGoString

from trivet_exporter_prometheus.families import Family, FamilySample


def render(families: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """The text, and its content type, for a client with that ``Accept`` header. May take milliseconds."""
    if "application/openmetrics-text" in accept:
        text: bytes = generate_latest(_Collected(families))  # type: ignore[no-untyped-call]
        return text, OPENMETRICS
    return "".join(_classic(families)).encode(), CONTENT_TYPE_LATEST


def _classic(families: Sequence[Family]) -> Iterator[str]:
    for family in families:
        description = family.description.replace("\\", "\\\\").replace("\n", "\\n")
        yield f"# HELP {family.name} {description}\n# TYPE {family.name} {family.kind}\n"
        for sample in family.samples:
            value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
            yield f"{family.name}{sample.suffix}{_labels(sample)} {value}\n"


def _labels(sample: FamilySample) -> str:
    if not sample.labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value)}"' for name, value in sample.labels.items()]) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class _Collected:
    """Families as the client library takes them."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            name, kind = family.name, str(family.kind)
            if kind == "counter":
                if name.endswith("_total"):
                    name = name.removesuffix("_total")
                else:
                    kind = "unknown"
            metric = Metric(name, family.description, kind)
            for sample in family.samples:
                exemplar = None
                if sample.exemplar is not None:
                    trace_id, value, time_s = sample.exemplar
                    exemplar = ClientExemplar({"trace_id": trace_id}, value, time_s)
                metric.add_sample(family.name + sample.suffix, dict(sample.labels), sample.value, exemplar=exemplar)
            yield metric
