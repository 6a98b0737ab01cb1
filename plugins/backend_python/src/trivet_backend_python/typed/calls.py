"""How typed models call other models: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.tensor import Tensor, object_array

from trivet_backend_python import scope
from trivet_backend_python.memory import read_only
from trivet_backend_python.waits import ResponseStream, Waits


def call(
    model: str, inputs: Mapping[str, ArrayLike], *, outputs: Sequence[str] | None = None, version: int | None = None
) -> dict[str, NDArray[Any]]:
    """Ask another model of this server and block for its outputs, all or those named, as arrays that may be written.

    Arrays have the other model's dtypes, and its batch in front where it has one; text is an array or list of ``str``
    or ``bytes`` and comes back as ``bytes``. Raises the :class:`~trivet.errors.TrivetError` that it answers with.
    """
    place, caller = _place()
    request = _request(place, model, inputs, outputs, version)
    if place.waits is not None:
        place.waits.begin()
    try:
        return _arrays(caller.infer(request))
    finally:
        if place.waits is not None:
            place.waits.end()


def stream(
    model: str, inputs: Mapping[str, ArrayLike], *, outputs: Sequence[str] | None = None, version: int | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Ask another model and iterate over its responses as they come; leaving the iteration cancels the rest.

    As :func:`call`; for models that give any number of responses. Nothing is asked before the first is taken.
    """
    place, caller = _place()
    request = _request(place, model, inputs, outputs, version)
    if place.waits is None:
        place.waits = Waits()
    return _iterate(ResponseStream(caller, request, place.waits))


def _iterate(responses: ResponseStream) -> Iterator[dict[str, NDArray[Any]]]:
    try:
        while (response := responses.take()) is not None:
            # A model that is done may say so with a response that holds nothing.
            if response.outputs or response.error is not None or not response.final:
                yield _arrays(response)
    finally:
        responses.close()


def _place() -> tuple[scope.Scope, Any]:
    place = scope.find()
    caller = None if place is None else place.package.call
    if place is None or caller is None:
        raise InternalError("call() and stream() work only in the code of a model that the server runs")
    return place, caller


def _request(
    place: scope.Scope,
    model: str,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str] | None,
    version: int | None,
) -> InferenceRequest:
    request = InferenceRequest(
        model,
        {name: _tensor(name, value) for name, value in inputs.items()},
        model_version="" if version is None else str(version),
        outputs=None if outputs is None else [RequestedOutput(name) for name in outputs],
    )
    request.origin = place.execution
    return request


def _tensor(name: str, value: ArrayLike) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        array = object_array(items, array.shape)
    return Tensor.from_numpy(name, read_only(np.ascontiguousarray(array)))


def _arrays(response: InferenceResponse) -> dict[str, NDArray[Any]]:
    if response.error is not None:
        raise response.error
    # The other model may keep what it answered with.
    return {tensor.name: tensor.numpy().copy() for tensor in response.outputs}
