"""Inference requests made once, in the bytes that the official client would send: for load generators to repeat."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from bench.servers import Server, ServerError

Arrays = Mapping[str, NDArray[Any]]


class Call:
    """One inference request to a model, encoded for HTTP (binary tensor extension) and for gRPC (raw contents)."""

    def __init__(self, model: str, inputs: Arrays, output: str) -> None:
        self.model = model
        self.inputs = inputs
        self.output = output
        self.http_path = f"/v2/models/{model}/infer"
        body, header_length = httpclient.InferenceServerClient.generate_request_body(
            self._inputs(httpclient), outputs=[httpclient.InferRequestedOutput(output, binary_data=True)]
        )
        self.http_body: bytes = bytes(body)
        self.http_header_length: int = header_length
        """Bytes of JSON before the tensors, for the header ``Inference-Header-Content-Length``."""
        message = service_pb2.ModelInferRequest(model_name=model)
        for name, array in inputs.items():
            message.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
            message.raw_input_contents.append(array.tobytes())
        message.outputs.add(name=output)
        encoded = message.SerializeToString()
        self.grpc_frame: bytes = struct.pack(">?I", False, len(encoded)) + encoded
        """A gRPC message: not compressed, its length, the protobuf."""

    def verify(self, server: Server, expected: NDArray[Any]) -> None:
        """Ask once over HTTP and once over gRPC with the official clients, so that no wrong answer gets measured.

        Raises :class:`~bench.servers.ServerError` where an answer is not ``expected`` within a float's tolerance.
        """
        for client, url in ((httpclient, server.http), (grpcclient, server.grpc)):
            with client.InferenceServerClient(url) as connection:
                answer = connection.infer(self.model, self._inputs(client)).as_numpy(self.output)
            if answer is None or answer.shape != expected.shape or not np.allclose(answer, expected, atol=1e-4):
                raise ServerError(f"{server.name} answered '{self.model}' with {answer!r}, expected {expected!r}")

    def _inputs(self, client: Any) -> list[Any]:
        made = []
        for name, array in self.inputs.items():
            tensor = client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            made.append(tensor)
        return made


def doubling() -> tuple[Call, NDArray[np.float32]]:
    """The call of the example model ``double``, float32 [1, 16], and what it must answer."""
    numbers = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16)
    return Call("double", {"INPUT0": numbers}, "OUTPUT0"), numbers * 2
