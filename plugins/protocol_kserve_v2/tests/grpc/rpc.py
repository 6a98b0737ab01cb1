"""The service's methods as plain calls with the server's own message classes, for what clients do not send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from trivet import datatypes
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
Metadata = Sequence[tuple[str, str]]


class Rpc:
    """A channel to a server."""

    def __init__(self, url: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(url, options)

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(self, name: str, request: Any = None, metadata: Metadata = (), timeout: float = 20) -> Any:
        """Call a unary method of the service by name."""
        request = getattr(pb, f"{name}Request")() if request is None else request
        method = self.channel.unary_unary(
            SERVICE + name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(pb, f"{name}Response").FromString,
        )
        return method(request, metadata=metadata, timeout=timeout)

    def send(self, path: str, payload: bytes) -> bytes:
        """Send bytes to any unary method."""
        answer: bytes = self.channel.unary_unary(path)(payload, timeout=20)
        return answer

    def stream(
        self, requests: Iterable[pb.ModelInferRequest], metadata: Metadata = (), timeout: float = 20
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """``ModelStreamInfer``; ``requests`` may be a generator that waits."""
        method = self.channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        call: Iterator[pb.ModelStreamInferResponse] = method(iter(requests), metadata=metadata, timeout=timeout)
        return call


def request(model: str, id: str = "", version: str = "", outputs: Sequence[str] = (), **inputs: Any) -> Any:
    """A request with raw contents of the arrays given."""
    message = pb.ModelInferRequest(model_name=model, id=id, model_version=version)
    for name, value in inputs.items():
        array = np.asarray(value)
        message.inputs.add(name=name, datatype=datatypes.from_numpy(array.dtype).name, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    return message


def int32(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)
