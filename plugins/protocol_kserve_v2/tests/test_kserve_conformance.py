"""The kit's clients are Triton's."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from trivet.testing import RunningServer
from trivet.testing.conformance import ProtocolConformance


class TestHttp(ProtocolConformance):
    protocol = "kserve_v2_http"

    def infer(self, server: RunningServer, model: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        given = tritonclient.http.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        with tritonclient.http.InferenceServerClient(server.http_url) as client:
            return client.infer(model, [given]).as_numpy("y")

    def leave(self, server: RunningServer, model: str, x: NDArray[np.float32], executing: Callable[[], object]) -> None:
        given = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
        with closing(HTTPConnection(server.http_url, timeout=60)) as connection:
            connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [given]}))
            executing()


class TestGrpc(ProtocolConformance):
    protocol = "kserve_v2_grpc"

    def infer(self, server: RunningServer, model: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        given = tritonclient.grpc.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            return client.infer(model, [given]).as_numpy("y")

    def leave(self, server: RunningServer, model: str, x: NDArray[np.float32], executing: Callable[[], object]) -> None:
        given = tritonclient.grpc.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            call = client.async_infer(model, [given], lambda result, error: None)
            executing()
            call.cancel()
