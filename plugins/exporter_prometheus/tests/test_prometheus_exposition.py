"""The text of a scrape, in both formats, as Prometheus' own parsers read it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic
from trivet_exporter_prometheus.exposition import render
from trivet_exporter_prometheus.families import Exemplar, Family, Histogram, label_text, with_label
from trivet_exporter_prometheus.readings import Apart

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))


def family(kind: str = "counter", name: str = "nv_things") -> Family:
    made = Family(name, "How many things", kind)  # type: ignore[arg-type]
    made.add(label_text({"model": "m"}), 3)
    return made


def test_a_counter_of_tritons_keeps_its_name_in_both_formats() -> None:
    text, content_type = render([family()], "")
    assert text.decode() == '# HELP nv_things How many things\n# TYPE nv_things counter\nnv_things{model="m"} 3\n'
    assert content_type.startswith("text/plain; version=")

    text, content_type = render([family()], OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    (read,) = read_openmetrics(text.decode())
    assert read.type == "unknown"
    assert [(sample.name, sample.labels, sample.value) for sample in read.samples] == [("nv_things", {"model": "m"}, 3)]


def test_a_counter_of_trivets_is_one_in_both_formats() -> None:
    for read, accept in ((read_classic, ""), (read_openmetrics, OPENMETRICS)):
        (found,) = read(render([family(name="trivet_things_total")], accept)[0].decode())
        assert found.type == "counter"
        assert found.samples[0].name == "trivet_things_total"


def test_a_histogram_with_an_example_of_a_bucket() -> None:
    made = Family("trivet_seconds", "Time", "histogram")
    exemplar = Exemplar("0af7651916cd43dd8448eb211c80319c", 0.7, 1.5)
    made.histograms.append(Histogram(label_text({"model": "m"}), (0.5, 1.0), [1, 2, 1], 9.5, {1: exemplar}))
    (read,) = read_openmetrics(render([made], OPENMETRICS)[0].decode())
    buckets = {sample.labels["le"]: sample for sample in read.samples if sample.name == "trivet_seconds_bucket"}
    assert {bound: sample.value for bound, sample in buckets.items()} == {"0.5": 1, "1.0": 3, "+Inf": 4}
    found = buckets["1.0"].exemplar
    assert (found.labels, found.value, float(found.timestamp)) == ({"trace_id": exemplar.trace_id}, 0.7, 1.5)
    (read,) = read_classic(render([made], "")[0].decode())
    totals = {sample.name: sample.value for sample in read.samples if "le" not in sample.labels}
    assert totals == {"trivet_seconds_count": 4, "trivet_seconds_sum": 9.5}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@given(label=TEXT, description=TEXT, value=st.floats())
def test_whatever_a_label_says_it_is_read_back(accept: str, label: str, description: str, value: float) -> None:
    made = Family("nv_things", description, "gauge")
    made.add(label_text({"model": label}), value)
    read = read_openmetrics if accept else read_classic
    (found,) = read(render([made], accept)[0].decode())
    (sample,) = found.samples
    assert sample.labels == {"model": label}
    assert sample.value == value or (math.isnan(sample.value) and math.isnan(value))


def test_a_histogram_without_labels_and_a_label_more() -> None:
    made = Family("trivet_seconds", "Time", "histogram")
    made.histograms.append(Histogram("", (1,), [2, 0], 1, {}))
    assert render([made], "")[0].decode().splitlines()[2:] == [
        'trivet_seconds_bucket{le="1.0"} 2',
        'trivet_seconds_bucket{le="+Inf"} 2',
        "trivet_seconds_count 2",
        "trivet_seconds_sum 1",
    ]
    assert with_label("", "quantile", "0.5") == '{quantile="0.5"}'
    assert with_label(label_text({"model": "m"}), "quantile", "0.5") == '{model="m",quantile="0.5"}'


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_half_of_a_surrogate_pair_costs_no_more_than_itself(accept: str) -> None:
    made = Family("things", "Things \udcff", "gauge")
    made.add(label_text({"of": "a\udcffb"}), 1)
    (found,) = (read_openmetrics if accept else read_classic)(render([made], accept)[0].decode())
    assert found.documentation == "Things ?"
    assert found.samples[0].labels == {"of": "a?b"}


def test_families_of_models_that_would_be_taken_for_others_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    apart = Apart()
    servers = [family(), family("histogram", "trivet_seconds"), family("summary", "nv_us")]
    names = ["a", "nv_things", "nv_us_sum", "trivet_seconds_bucket", "nv_us_bucket"]
    models = [family("gauge", name) for name in names] + [family("histogram", "h"), family("counter", "h_count")]
    for _ in range(2):
        shown = [each.name for each in apart(servers, models)]
        assert shown == ["nv_things", "trivet_seconds", "nv_us", "a", "nv_us_bucket", "h"]
    told = [record.args for record in caplog.records]
    assert told == [("nv_things",), ("nv_us_sum",), ("trivet_seconds_bucket",), ("h_count",)]


def test_a_number_of_numpys_is_a_number() -> None:
    made = Family("things", "Things", "gauge")
    made.add("", np.float32(0.5))  # type: ignore[arg-type]
    assert render([made], "")[0].decode().splitlines()[2:] == ["things 0.5"]
