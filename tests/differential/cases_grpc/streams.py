"""Several requests on one stream, and models that answer any number of times."""

from __future__ import annotations

from typing import Any

from .case import Call, Case, infer, one, request, stream, tensor

_DOUBLE = request("double", tensor("INPUT0", "FP32", [1, 16], range(16)), id="d")
_WRONG = request("double", tensor("INPUT0", "FP32", [1, 16], b"123"), id="w")
_UNKNOWN = request("nope", tensor("INPUT0", "FP32", [1, 16], range(16)), id="u")
_FAILING = request("failing", tensor("HOW", "INT32", [1, 1], [2]), id="f")


def _count(count: int, *, empty_final: bool | None = None, **fields: Any) -> Any:
    parameters = None if empty_final is None else {"triton_enable_empty_final_response": empty_final}
    return request("decoupled", tensor("COUNT", "INT32", [1], [count]), parameters=parameters, id="c", **fields)


CASES: list[Case] = [
    one("no requests", stream()),
    one("one request", stream(_DOUBLE)),
    one("three requests", stream(_DOUBLE, _DOUBLE, _DOUBLE)),
    one("good and bad in order", stream(_DOUBLE, _WRONG, _UNKNOWN, _FAILING, _DOUBLE)),
    *(
        one(f"{count} responses, empty final response {empty_final}", stream(_count(count, empty_final=empty_final)))
        for count in (0, 1, 3)
        for empty_final in (None, False, True)
    ),
    one("a decoupled model, with a version", stream(_count(1, empty_final=True, model_version="1"))),
    one("a decoupled model, refused", stream(request("decoupled", tensor("COUNT", "INT32", [1], b"1"), id="c"))),
    one("a decoupled model, unknown version", stream(_count(1, model_version="9"))),
    one("a decoupled model without a stream", infer(_count(1))),
    one(
        "an empty final response of a model that is not decoupled",
        stream(
            request(
                "double",
                tensor("INPUT0", "FP32", [1, 16], range(16)),
                parameters={"triton_enable_empty_final_response": True},
            )
        ),
    ),
    one("the first error ends the call: from the model", stream(_FAILING, triton_grpc_error="true")),
    one("errors end no call where that is not asked for", stream(_FAILING, _DOUBLE, triton_grpc_error="false")),
    one("good requests where errors end the call", stream(_DOUBLE, _DOUBLE, triton_grpc_error="true")),
    one("bytes that are no message", Call("ModelStreamInfer", (b"\xff\xff\xff",)), "stream of nonsense"),
]
