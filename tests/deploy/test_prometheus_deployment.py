"""What ``deploy/`` gives works against a real Prometheus that scrapes a real server."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import yaml
from python_models import REFUSING
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus"

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed (Debian's package 'prometheus')",
)

STREAM = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "Y" data_type: TYPE_FP32 dims: 4 }
"""
MODELS = {
    "plain": (REFUSING, ""),
    "cached": (REFUSING, "response_cache { enable: true }"),
    "stream": (STREAM, "model_transaction_policy { decoupled: true }"),
}
NO_GPU = re.compile(r"nv_gpu_")
# Nothing is wrong with the server, so no alert has anything to show.
VARIABLES = {"$job": "trivet", "$model": ".*", "$__rate_interval": "1m"}


class Prometheus:
    """A running Prometheus, asked by its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self._address}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Any]:
        """What an expression gives now. Raises for one that is wrong."""
        found: list[Any] = self.get("api/v1/query", query=expression)["result"]
        return found

    def wait_for(self, expression: str) -> None:
        """Until it gives something; nothing tells when a scrape or a rule has run."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.query(expression):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # it has not begun to listen
            time.sleep(0.1)
        raise TimeoutError(f"nothing answers {expression!r}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = tmp_path_factory.mktemp("models")
    for name, (code, config) in MODELS.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.py").write_text(code)
        (models / name / "config.pbtxt").write_text(CONFIG + config)
    with running_server(
        models,
        cache_config=["local,size=1000000"],
        metrics_config=["summary_latencies=true", "histogram_latencies=true"],
    ) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped the server a few times while it worked, and run its rules since."""
    with _running(server.url("metrics"), tmp_path_factory.mktemp("prometheus")) as running:
        running.wait_for('up{job="trivet"} == 1')
        _use(server)  # what has been there at the first scrape is no increase
        running.wait_for('increase(nv_inference_request_success{model="plain"}[1m]) > 0')
        running.wait_for("increase(trivet_event_loop_lag_seconds_count[1m]) > 0")
        running.wait_for('model:batch_size:mean5m{model="plain"} >= 1')
        yield running


@contextmanager
def _running(target: str, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus on the configuration of ``deploy/``, in a hurry."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}", "--enable-feature=exemplar-storage"], stderr=log
        )
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(30)


def _use(server: RunningServer) -> None:
    """Requests of each kind that the dashboard shows."""
    with http_client.InferenceServerClient(server.http_url) as client:
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        for number in range(20):
            for model in ("plain", "cached"):
                client.infer(model, [_input(http_client, number % 5)], headers=trace)
        with pytest.raises(InferenceServerException, match="negative"):
            client.infer("plain", [_input(http_client, -1)])
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: None)
        client.async_stream_infer("stream", [_input(grpc_client, 1)])
        client.stop_stream()


def _input(client: Any, value: float) -> Any:
    x = client.InferInput("X", [1, 4], "FP32")
    x.set_data_from_numpy(np.full((1, 4), value, np.float32))
    return x


def _dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "trivet.json").read_text())


def _queries() -> dict[str, str]:
    """Every query of the dashboard, as Grafana would send it, by where it is."""
    found = {}
    for panel in _dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


def _rules(name: str) -> list[Any]:
    return [rule for group in yaml.safe_load((RULES / name).read_text())["groups"] for rule in group["rules"]]


def test_promtool_accepts_configuration_and_rules() -> None:
    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=RULES, check=True, timeout=60)


def test_alerts_fire_where_they_should_and_only_there() -> None:
    subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=RULES, check=True, timeout=60)
    tests = (RULES / "alerts_test.yml").read_text()
    assert all(f"alertname: {rule['alert']}\n" in tests for rule in _rules("alerts.yml"))


def test_promtool_finds_nothing_to_criticize_in_the_families_that_are_trivets_own(server: RunningServer) -> None:
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as response:
        text = response.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    # Triton's names are as they are: counters without "_total", microseconds.
    assert [line for line in checked.stderr.decode().splitlines() if not line.startswith("nv_")] == []


def test_the_server_is_scraped_whole(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("api/v1/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (samples,) = prometheus.query('scrape_samples_scraped{job="trivet"}')
    (kept,) = prometheus.query('count({job="trivet", __name__=~"(nv_|trivet_).*"})')
    assert float(samples["value"][1]) >= float(kept["value"][1]) > 200


def test_each_query_of_the_dashboard_shows_something(prometheus: Prometheus) -> None:
    empty = [name for name, expression in _queries().items() if not prometheus.query(expression)]
    without_gpu = [name for name, expression in _queries().items() if NO_GPU.search(expression)]
    if prometheus.query("nv_gpu_utilization"):
        without_gpu = []
    assert empty == without_gpu


def test_the_variables_of_the_dashboard_find_jobs_and_models(prometheus: Prometheus) -> None:
    for variable in _dashboard()["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        found = prometheus.get(f"api/v1/label/{label}/values", **{"match[]": selector.replace("$job", "trivet")})
        assert found == {"job": ["trivet"], "model": ["cached", "plain", "stream"]}[variable["name"]]


def test_each_rule_is_run_and_gives_what_it_should(prometheus: Prometheus) -> None:
    groups = prometheus.get("api/v1/rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {
        rule.get("record") or rule["alert"] for name in ("recording.yml", "alerts.yml") for rule in _rules(name)
    }
    assert {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"} == {}
    for rule in _rules("recording.yml"):
        assert prometheus.query(rule["record"]), rule["record"]
    firing = {
        alert["labels"]["alertname"]
        for alert in prometheus.get("api/v1/alerts")["alerts"]
        if alert["state"] == "firing"
    }
    # Every alert waits for a minute at least.
    assert firing == set()


def test_what_an_alert_looks_at_is_there(prometheus: Prometheus) -> None:
    """Each metric and recorded series that an alert names, so that none is silent for a misspelt name."""
    for rule in _rules("alerts.yml"):
        for name in re.findall(r"\b(?:up|(?:nv|trivet)_\w+|(?:model|instance):[\w:]+)", rule["expr"]):
            if not NO_GPU.search(name):
                assert prometheus.query(f'{name}{{job="trivet"}}'), name


def test_examples_of_traces_arrive(prometheus: Prometheus) -> None:
    now = time.time()
    series = prometheus.get(
        "api/v1/query_exemplars", query="trivet_request_duration_seconds_bucket", start=str(now - 300), end=str(now)
    )
    traces = {exemplar["labels"]["trace_id"] for one in series for exemplar in one["exemplars"]}
    assert traces == {"0af7651916cd43dd8448eb211c80319c"}
