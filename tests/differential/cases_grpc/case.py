"""What a gRPC case is, and short ways to write one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf.message import Message
from trivet import datatypes
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Several payloads only make sense on the method that streams."""

    method: str
    payloads: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """Calls that are made one after the other, and whose answers are compared one by one.

    ``difference`` is the entry of the table of differences that says why an answer differs.
    """

    name: str
    calls: tuple[Call, ...]
    difference: str = ""


def unary(method: str, **fields: Any) -> Call:
    """A call of the method named, with the fields of its request."""
    return Call(method, (getattr(pb, f"{method}Request")(**fields).SerializeToString(),))


def infer(request: Message, **metadata: str) -> Call:
    return Call("ModelInfer", (request.SerializeToString(),), _metadata(metadata))


def stream(*requests: Message, **metadata: str) -> Call:
    return Call("ModelStreamInfer", tuple(request.SerializeToString() for request in requests), _metadata(metadata))


def one(name: str, call: Call, difference: str = "") -> Case:
    """A case of one call."""
    return Case(name, (call,), difference)


def both(name: str, request: Message, difference: str = "") -> tuple[Case, Case]:
    """The same request by itself and on a stream."""
    return one(name, infer(request), difference), one(f"{name}, on a stream", stream(request), difference)


def differing(cases: Iterable[Case], difference: str) -> list[Case]:
    return [replace(case, difference=difference) for case in cases]


def tensor(
    name: str,
    datatype: str,
    shape: Sequence[int],
    data: Any = None,
    parameters: Mapping[str, Any] | None = None,
    **contents: Any,
) -> tuple[dict[str, Any], bytes | None]:
    """An input, and its raw contents: bytes as they are, values in the datatype's layout."""
    entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if parameters:
        entry["parameters"] = {key: parameter(value) for key, value in parameters.items()}
    if contents:
        entry["contents"] = contents
    if data is not None and not isinstance(data, bytes):
        data = np.array(data, datatypes.BY_NAME[datatype].numpy).tobytes()
    return entry, data


def request(
    model: str,
    *inputs: tuple[dict[str, Any], bytes | None],
    outputs: Mapping[str, Mapping[str, Any]] | Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    extra: Sequence[bytes] = (),
    **fields: Any,
) -> pb.ModelInferRequest:
    """A request; ``extra`` are raw contents that no input has."""
    wanted = outputs if isinstance(outputs, Mapping) else {name: {} for name in outputs}
    return pb.ModelInferRequest(
        model_name=model,
        inputs=[entry for entry, _ in inputs],
        outputs=[
            {"name": name, "parameters": {key: parameter(value) for key, value in options.items()}}
            for name, options in wanted.items()
        ],
        raw_input_contents=[data for _, data in inputs if data is not None] + list(extra),
        parameters={key: parameter(value) for key, value in (parameters or {}).items()},
        **fields,
    )


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A parameter value to be sent as ``uint64_param``."""

    value: int


def parameter(value: Any) -> pb.InferParameter:
    """A parameter of the kind that fits the value; ``None`` is one without a value."""
    match value:
        case bool():
            return pb.InferParameter(bool_param=value)
        case int():
            return pb.InferParameter(int64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case str():
            return pb.InferParameter(string_param=value)
        case Unsigned():
            return pb.InferParameter(uint64_param=value.value)
        case _:
            return pb.InferParameter()


def text(*items: bytes) -> bytes:
    """Wire bytes of string elements."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key.replace("_", "-"), value) for key, value in metadata.items())
