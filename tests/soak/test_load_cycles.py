"""A thousand loads and unloads under traffic: no request is lost, and the memory comes back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.http as triton
from trivet.testing import RunningServer, running_server

CYCLES = 1000
SETTLED = 100
"""Cycles after which caches and pools have their size."""
GROWTH = 1.15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def write_model(folder: Path, width: int) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([product], "product", [x], [y], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))


class Traffic:
    """Requests to one model, one after the other, on a thread of their own."""

    def __init__(self, server: RunningServer) -> None:
        self.answered = 0
        self.failures: list[Exception] = []
        self._url = server.http_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        x = triton.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.ones((1, 4), np.float32))
        with triton.InferenceServerClient(self._url) as client:
            while not self._stop.is_set():
                try:
                    answer = client.infer("stays", [x]).as_numpy("y")
                    assert answer.tolist() == [[4.0] * 4]
                except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
                    self.failures.append(error)
                    return
                self.answered += 1


def test_a_model_comes_and_goes_a_thousand_times(tmp_path: Path) -> None:
    write_model(tmp_path / "stays" / "1", 4)
    write_model(tmp_path / "comes" / "1", 512)
    process = psutil.Process()
    with running_server(tmp_path, model_control_mode="explicit", load_model=["stays"]) as server:

        async def cycle() -> None:
            await server.engine.load("comes")
            await server.engine.unload("comes")

        settled = 0
        with Traffic(server) as traffic:
            for number in range(1, CYCLES + 1):
                server.call(cycle)
                if number == SETTLED:
                    settled = process.memory_info().rss
        assert traffic.failures == []
        assert traffic.answered > CYCLES
        assert process.memory_info().rss < settled * GROWTH
