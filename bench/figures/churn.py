"""An ONNX model loaded and unloaded over and over while another is asked: failed requests, and the server's memory.

``--cycles`` says how often (1,000). Memory is compared between the first hundred cycles and the last.
"""

from __future__ import annotations

import json
import threading
import time
from http.client import HTTPConnection

import numpy as np

from bench import machine, servers
from bench.calls import Call
from bench.report import Report, at_most
from bench.repositories import FILE_TYPE, repository, tiny_onnx
from bench.settings import Settings

CALLERS = 2
STEP = 100
_UNLOAD_TIMEOUT_S = 30


class Traffic:
    """Asks a model all the time from a few threads, and keeps count."""

    def __init__(self, server: servers.Server, call: Call) -> None:
        self._server = server
        self._call = call
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CALLERS)]
        self._lock = threading.Lock()
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = HTTPConnection(self._server.http, timeout=30)
        headers = {"Inference-Header-Content-Length": str(self._call.http_header_length)}
        while not self._stop.is_set():
            failure = ""
            try:
                connection.request("POST", self._call.http_path, self._call.http_body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    failure = f"{response.status} {answer[:200]!r}"
            except OSError as error:
                failure = repr(error)
                connection.close()
            with self._lock:
                if failure:
                    self.failures.append(failure)
                else:
                    self.answered += 1
        connection.close()


def run(settings: Settings, report: Report) -> None:
    asked = Call("asked", {"x": np.ones((1, 16), np.float32)}, "y")
    # Run once per load, so that the session has allocated what a served model allocates.
    churned = Call("churned", {"bytes": np.zeros((1, 2048), np.int32)}, "target_label")
    with repository() as models:
        (models.path / "asked" / "1").mkdir(parents=True)
        tiny_onnx(models.path / "asked" / "1" / "model.onnx")
        models.onnx("churned", FILE_TYPE, "max_batch_size: 4")
        with servers.trivet(models.path, "--model-control-mode=explicit", "--load-model=asked") as server:
            asked.verify(server, np.full((1, 16), 2, np.float32))
            resident = [machine.resident_bytes(server.pid)]
            began = time.perf_counter()
            with Traffic(server, asked) as traffic:
                for cycle in range(1, settings.cycles + 1):
                    _cycle(server, churned)
                    if cycle % STEP == 0 or cycle == settings.cycles:
                        resident.append(machine.resident_bytes(server.pid))
                        print(f"  {cycle} cycles, {resident[-1] / machine.MB:.1f} MB resident", flush=True)
            elapsed = time.perf_counter() - began
            succeeded, _ = server.counts("asked")
    if traffic.failures:
        raise servers.ServerError(f"{len(traffic.failures)} requests failed, the first one: {traffic.failures[0]}")
    if succeeded < traffic.answered:
        raise servers.ServerError(f"{traffic.answered} answers, but the statistics count {succeeded} successes")
    report.add("failed requests to the other model", len(traffic.failures), "requests", at_most(0))
    report.add("answered requests to the other model", traffic.answered, "requests")
    report.add("cycles", settings.cycles / elapsed, "1/s")
    report.add("resident before", resident[0] / machine.MB, "MB")
    report.add(f"resident after {min(STEP, settings.cycles)} cycles", resident[1] / machine.MB, "MB")
    report.add(f"resident after {settings.cycles} cycles", resident[-1] / machine.MB, "MB")
    report.add("resident, last / first hundred", resident[-1] / resident[1], "x", at_most(1.05))


def _cycle(server: servers.Server, call: Call) -> None:
    """Load, ask once, unload, and wait until the model's memory was given back."""
    server.call("POST", f"/v2/repository/models/{call.model}/load")
    server.call("POST", call.http_path, json.dumps(_as_json(call)).encode())
    server.call("POST", f"/v2/repository/models/{call.model}/unload")
    deadline = time.monotonic() + _UNLOAD_TIMEOUT_S
    while True:
        index = {entry["name"]: entry for entry in server.call("POST", "/v2/repository/index", b"{}")}
        state = index[call.model].get("state", "")
        if state == "UNAVAILABLE":
            return
        if time.monotonic() > deadline:
            raise servers.ServerError(f"'{call.model}' is still {state} {_UNLOAD_TIMEOUT_S} s after its unload")
        time.sleep(0.005)


def _as_json(call: Call) -> dict[str, object]:
    return {
        "inputs": [
            {"name": name, "shape": array.shape, "datatype": "INT32", "data": array.reshape(-1).tolist()}
            for name, array in call.inputs.items()
        ]
    }
