"""Families into the text that Prometheus reads, in either of its formats.

Triton's counters have no names that end with ``_total``, which OpenMetrics demands of counters. There they are of
unknown type under their own names, so that queries are the same in both.

Source: Prometheus' "Exposition formats"; OpenMetrics 1.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate

from trivet_exporter_prometheus.families import Exemplar, Family, Histogram, escaped

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The text, and its content type, for a client with that ``Accept`` header.

    Halves of surrogate pairs, which no encoding has, become question marks: one label must not cost all others. Takes
    about a microsecond for three lines, so tens of milliseconds for hundreds of models.
    """
    if "application/openmetrics-text" in accept:
        lines = [line for family in families for line in _openmetrics(family)]
        return "".join([*lines, "# EOF\n"]).encode(errors="replace"), OPENMETRICS
    lines = [line for family in families for line in _classic(family)]
    return "".join(lines).encode(errors="replace"), CLASSIC


def _classic(family: Family) -> Iterator[str]:
    description = family.description.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {family.name} {description}\n# TYPE {family.name} {family.kind}\n"
    yield from _samples(family)
    for histogram in family.histograms:
        yield from _buckets(family.name, histogram, {})


def _openmetrics(family: Family) -> Iterator[str]:
    name, kind = family.name, str(family.kind)
    if kind == "counter":
        if name.endswith("_total"):
            name = name.removesuffix("_total")
        else:
            kind = "unknown"
    yield f"# HELP {name} {escaped(family.description)}\n# TYPE {name} {kind}\n"
    yield from _samples(family)
    for histogram in family.histograms:
        yield from _buckets(family.name, histogram, histogram.exemplars)


def _samples(family: Family) -> Iterator[str]:
    name = family.name
    for labels, value in family.samples:
        yield f"{name}{labels} {_number(value)}\n"


def _buckets(name: str, histogram: Histogram, exemplars: Mapping[int, Exemplar]) -> Iterator[str]:
    count = 0
    places = zip(_bounds(histogram.bounds), accumulate(histogram.counts), strict=True)
    # The labels of all buckets begin alike.
    begin = f"{name}_bucket{histogram.labels[:-1]}," if histogram.labels else f"{name}_bucket{{"
    for place, (bound, count) in enumerate(places):
        if place in exemplars:
            trace_id, value, time_s = exemplars[place]
            example = f' # {{trace_id="{escaped(trace_id)}"}} {_number(value)} {time_s:.3f}'
            yield f'{begin}le="{bound}"}} {count}{example}\n'
        else:
            yield f'{begin}le="{bound}"}} {count}\n'
    yield f"{name}_count{histogram.labels} {count}\n{name}_sum{histogram.labels} {_number(histogram.total)}\n"


@lru_cache(maxsize=64)
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*(_number(float(bound)) for bound in bounds), "+Inf")


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    value = float(value)  # a model may have given a number of NumPy's
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
