"""Spans, metrics and log records of a server, as a collector gets them by OTLP."""

from __future__ import annotations

import logging
import queue
import re
import shutil
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_collector import collecting
from python_models import REFUSING, REPEAT
from tritonclient.utils import InferenceServerException
from trivet.errors import TrivetError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet.testing import RunningServer, running_server

ASKING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.ask(request.inputs()[0].as_numpy()) for request in requests]

    def ask(self, x):
        called = pb_utils.InferenceRequest(
            model_name="chain", inputs=[pb_utils.Tensor("X", x)], requested_output_names=["Y"])
        y = pb_utils.get_output_tensor_by_name(called.exec(), "Y").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", y)])
"""
TENSORS = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "Y" data_type: TYPE_FP32 dims: 4 }
"""
PYTHON = f'backend: "python" {TENSORS}'
HOLDING = "dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: 8 }"
CHAIN = f"""
platform: "ensemble" {TENSORS}
ensemble_scheduling {{ step [
  {{ model_name: "plain" model_version: -1
     input_map {{ key: "X" value: "X" }} output_map {{ key: "Y" value: "between" }} }},
  {{ model_name: "plain" model_version: -1
     input_map {{ key: "X" value: "between" }} output_map {{ key: "Y" value: "Y" }} }}
] }}
"""

PHASES = ("queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, code, config in (
        ("plain", REFUSING, PYTHON),
        ("asking", ASKING, PYTHON),
        ("repeat", REPEAT, PYTHON + "model_transaction_policy { decoupled: true }"),
        ("cached", REFUSING, PYTHON + "response_cache { enable: true }"),
        (
            "held",
            REFUSING,
            PYTHON + "dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: 8 }",
        ),
        ("chain", "", CHAIN),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        if code:
            (folder / name / "1" / "model.py").write_text(code)
    return folder


@contextmanager
def traced(models: Path, folder: Path, url: str, *config: str, **options: Any) -> Iterator[RunningServer]:
    """A server that traces every request, unless ``config`` says otherwise."""
    repository = shutil.copytree(models, folder / "models")
    settings = ["mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={url}/v1/traces"]
    settings += ["opentelemetry,bsp_max_queue_size=100000", *config]
    with running_server(repository, trace_config=settings, cache_config=["local,size=1000000"], **options) as server:
        yield server


X = np.ones((1, 4), np.float32)


def x_input(module: Any, x: np.ndarray = X) -> list[Any]:
    tensor = module.InferInput("X", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    return [tensor]


def trees(spans: list[Span]) -> list[Any]:
    """Each trace as ``(name, [children])``, children in the order in which they began; and that times are in order."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    children: dict[bytes, list[Span]] = defaultdict(list)
    roots = []
    for span in spans:
        parent = by_id.get(span.parent_span_id)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if parent is None:
            roots.append(span)
            continue
        children[parent.span_id].append(span)
        assert span.trace_id == parent.trace_id
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= parent.end_time_unix_nano

    def tree(span: Span) -> Any:
        below = sorted(children[span.span_id], key=lambda each: each.start_time_unix_nano)
        return (span.name, [tree(each) for each in below]) if below else span.name

    assert len({root.trace_id for root in roots}) == len(roots)
    return [tree(root) for root in sorted(roots, key=lambda each: each.start_time_unix_nano)]


def attributes(of: Any) -> dict[str, Any]:
    """Those of a span or a log record."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


ONE = ("plain", list(PHASES))


def test_each_request_step_and_call_has_its_place(models: Path, tmp_path: Path) -> None:
    with collecting() as collector:
        with traced(models, tmp_path, collector.url) as server:
            client = http_client.InferenceServerClient(server.http_url)
            client.infer("plain", x_input(http_client), request_id="a")
            client.infer("chain", x_input(http_client))
            client.infer("asking", x_input(http_client))
            for _ in range(2):
                client.infer("cached", x_input(http_client))
        plain, chain, asking, missed, hit = trees(collector.spans)
    assert plain == ONE
    assert chain == ("chain", [ONE, ONE])
    # The call was made while the model computed.
    assert asking == ("asking", [*PHASES[:3], ("chain", [ONE, ONE]), PHASES[3]])
    assert missed == ("cached", list(PHASES))
    assert hit == "cached"
    first = next(span for span in collector.spans if attributes(span).get("triton.request_id") == "a")
    assert attributes(first) == {
        "triton.model_name": "plain",
        "triton.model_version": 1,
        "triton.request_id": "a",
        "trivet.batch_size": 1,
        "network.protocol.name": "http",
    }
    assert first.kind == Span.SPAN_KIND_SERVER
    assert collector.resource["service.name"] == "trivet"


def test_a_thousand_requests_are_a_thousand_traces(models: Path, tmp_path: Path) -> None:
    """Successes, failures, refusals and cancellations over HTTP and gRPC, many at a time: none is lost or twice."""

    def over_http(server: RunningServer, count: int, x: np.ndarray) -> int:
        client = http_client.InferenceServerClient(server.http_url)
        return sum(failed(lambda: client.infer("plain", x_input(http_client, x))) for _ in range(count))

    def over_grpc(server: RunningServer, count: int, x: np.ndarray) -> int:
        client = grpc_client.InferenceServerClient(server.grpc_url)
        return sum(failed(lambda: client.infer("chain", x_input(grpc_client, x))) for _ in range(count))

    def cancelled(server: RunningServer, count: int) -> int:
        async def cancel_one() -> None:
            request = InferenceRequest("held", {"X": Tensor.from_numpy("X", X)})
            server.engine.submit(request)
            server.engine.cancel(request)

        for _ in range(count):
            server.call(cancel_one)
        return 0

    wide = np.ones((1, 5), np.float32)
    with collecting() as collector:
        with traced(models, tmp_path, collector.url) as server, ThreadPoolExecutor(8) as pool:
            jobs = [
                *(pool.submit(over_http, server, 100, X) for _ in range(4)),
                *(pool.submit(over_grpc, server, 100, X) for _ in range(3)),
                pool.submit(over_http, server, 100, -X),
                pool.submit(over_grpc, server, 100, -X),
                pool.submit(over_http, server, 50, wide),
                pool.submit(cancelled, server, 50),
            ]
            failures = [job.result() for job in jobs]
        assert failures == [0] * 7 + [100, 100, 50, 0]
        found = Counter(map(str, trees(collector.spans)))
    assert found == {
        str(ONE): 500,
        str(("chain", [ONE, ONE])): 300,
        str(("chain", [ONE])): 100,
        "plain": 50,
        str(("held", ["queue"])): 50,
    }
    errors = Counter(
        (span.name, attributes(span)["error.type"])
        for span in collector.spans
        if span.status.code == Status.STATUS_CODE_ERROR
    )
    assert errors == {
        ("plain", "internal"): 200,
        ("chain", "internal"): 100,
        ("plain", "invalid argument"): 50,
        ("held", "cancelled"): 50,
    }


def failed(call: Any) -> bool:
    try:
        call()
    except (InferenceServerException, TrivetError):
        return True
    return False


def test_a_stream_is_one_span_with_its_responses(models: Path, tmp_path: Path) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with collecting() as collector:
        with traced(models, tmp_path, collector.url) as server:
            client = grpc_client.InferenceServerClient(server.grpc_url)
            client.start_stream(lambda result, error: answers.put(error))
            client.async_stream_infer("repeat", x_input(grpc_client), enable_empty_final_response=True)
            assert [answers.get(timeout=30) for _ in range(4)] == [None] * 4
            client.stop_stream()
        assert trees(collector.spans) == [("repeat", list(PHASES))]
        (root,) = (span for span in collector.spans if span.name == "repeat")
    assert attributes(root)["trivet.responses"] == 4
    assert attributes(root)["network.protocol.name"] == "grpc"


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_a_callers_trace_goes_on_whatever_the_rate(models: Path, tmp_path: Path, module: Any) -> None:
    with collecting() as collector:
        with traced(models, tmp_path, collector.url, "rate=0") as server:
            url = server.http_url if module is http_client else server.grpc_url
            client = module.InferenceServerClient(url)
            for context in (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", "malformed", None):
                headers = {} if context is None else {"traceparent": context, "tracestate": "a=b"}
                client.infer("plain", x_input(module), request_id=str(context), headers=headers)
        roots = [span for span in collector.spans if span.name == "plain"]
        assert len(collector.spans) == 5
    (root,) = roots
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.trace_state) == (TRACE, PARENT, "a=b")
    assert attributes(root)["triton.request_id"].endswith("-01")


def test_settings_change_while_the_server_runs(models: Path, tmp_path: Path) -> None:
    with collecting() as collector:
        with traced(models, tmp_path, collector.url) as server:
            client = http_client.InferenceServerClient(server.http_url)
            shown = client.get_trace_settings()
            client.update_trace_settings("plain", {"trace_rate": "3"})
            for _ in range(7):
                client.infer("plain", x_input(http_client))
            client.update_trace_settings(settings={"trace_level": ["OFF"]})
            for _ in range(7):
                client.infer("plain", x_input(http_client))
        assert trees(collector.spans) == [ONE, ONE]
    assert shown == {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": "1",
        "trace_count": "-1",
        "trace_mode": "opentelemetry",
        "url": f"{collector.url}/v1/traces",
        "bsp_max_export_batch_size": "512",
        "bsp_schedule_delay": "5000",
        "bsp_max_queue_size": "100000",
    }


def test_a_collector_that_is_down_costs_requests_nothing(models: Path, tmp_path: Path) -> None:
    with collecting() as collector:
        url = collector.url
    with traced(models, tmp_path, url, "opentelemetry,bsp_schedule_delay=10") as server:
        client = http_client.InferenceServerClient(server.http_url)
        for _ in range(20):
            client.infer("plain", x_input(http_client))
        engine = server.engine
    (family,) = (family for family in engine.metrics.families() if family.name == "trivet_otlp_dropped")
    assert [(sample.labels, sample.value) for sample in family.samples()] == [((("signal", "traces"),), 100.0)]


def test_metrics_and_the_log(models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as collector:
        repository = shutil.copytree(models, tmp_path / "models")
        with (
            running_server(
                repository,
                cache_config=["local,size=1000000"],
                otel_metrics_url=f"{collector.url}/v1/metrics",
                otel_metrics_interval_ms=10,
                otel_logs_url=f"{collector.url}/v1/logs",
                log_access=True,
            ) as server,
            caplog.at_level(logging.INFO, "trivet.access_log"),
        ):
            client = http_client.InferenceServerClient(server.http_url)
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            for x in (X, X, -X):
                failed(lambda x=x: client.infer("plain", x_input(http_client, x), headers=headers))
            logging.getLogger("trivet.test").warning("something is odd")
            collector.wait_until(lambda found: bool(found.metrics))
            with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as response:
                shown = set(re.findall(r"^# TYPE (\S+)", response.read().decode(), re.MULTILINE))
        latest = {metric.name: metric for metric in collector.metrics}
        assert set(latest) == shown  # what Prometheus is shown, under the same names
        success, failure = (
            {
                tuple((each.key, each.value.string_value) for each in point.attributes): point.as_int
                for point in latest[name].sum.data_points
            }
            for name in ("nv_inference_request_success", "nv_inference_request_failure")
        )
        assert success[("model", "plain"), ("version", "1")] == 2
        assert failure[("model", "plain"), ("version", "1"), ("reason", "BACKEND")] == 1
        assert latest["nv_inference_request_success"].sum.is_monotonic
        times = point_of(latest["trivet_request_duration_seconds"].histogram, "plain")
        assert times.count == sum(times.bucket_counts) == 2
        assert len(times.bucket_counts) == len(times.explicit_bounds) + 1
        assert times.sum > 0
        (exemplar, *_) = times.exemplars
        assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (TRACE, PARENT)
        sizes = point_of(latest["trivet_batch_size"].histogram, "plain")
        assert (sizes.count, sizes.sum, sizes.bucket_counts[0]) == (3, 3, 3)
        assert len(latest["trivet_event_loop_lag_seconds"].histogram.data_points[0].bucket_counts) == 12
        assert latest["nv_cpu_memory_total_bytes"].gauge.data_points[0].as_int > 0
        assert latest["nv_cpu_memory_total_bytes"].unit == "By"
        assert latest["nv_cache_num_entries"].gauge.data_points[0].as_int == 0
        (record,) = (record for record in collector.logs if record.body.string_value == "something is odd")
        requests = [record for record in collector.logs if attributes(record).get("logger.name") == "trivet.access_log"]
    assert record.severity_text == "WARNING"
    assert {each.trace_id.hex() for each in requests} == {TRACE}
    assert [attributes(each)["status"] for each in requests] == ["ok", "ok", "internal"]
    assert attributes(requests[0])["model"] == "plain"
    assert attributes(requests[0])["duration_us"] > 0
    assert {each.key: each.value.string_value for each in record.attributes}["logger.name"] == "trivet.test"


def point_of(histogram: Any, model: str) -> Any:
    """The point of one model."""
    (point,) = (
        each
        for each in histogram.data_points
        if {label.key: label.value.string_value for label in each.attributes}["model"] == model
    )
    return point


def test_without_the_plugin_the_mode_is_refused(models: Path) -> None:
    from trivet.plugins import PluginRegistry
    from trivet.server import StartupError

    registry = PluginRegistry.of(protocol=_protocol())
    with (
        pytest.raises(StartupError, match="no plugin takes these traces; pip install trivet-exporter-opentelemetry"),
        running_server(models, registry=registry, trace_config=["mode=opentelemetry"]),
    ):
        pass


def _protocol() -> Any:
    from trivet_protocol_kserve_v2 import plugin

    return plugin
