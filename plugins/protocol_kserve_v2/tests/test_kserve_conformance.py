"""The kit's clients are Triton's."""

from __future__ import annotations

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


class TestGrpc(ProtocolConformance):
    protocol = "kserve_v2_grpc"

    def infer(self, server: RunningServer, model: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        given = tritonclient.grpc.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            return client.infer(model, [given]).as_numpy("y")
