"""Finding tensors in requests and responses, and their properties in a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet_backend_python.pb_utils.request import InferenceRequest
from trivet_backend_python.pb_utils.response import InferenceResponse
from trivet_backend_python.pb_utils.tensor import Tensor


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name; ``None`` where the request has none."""
    return inference_request._input(name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name; ``None`` where the response has none."""
    return next((tensor for tensor in inference_response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The properties of an input in ``json.loads(args["model_config"])``; ``None`` where there is none of that name."""
    return _by_name(model_config, "input", name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Like :func:`get_input_config_by_name`, for an output."""
    return _by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether the model may answer a request any number of times."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def _by_name(model_config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    return next((properties for properties in model_config.get(kind, ()) if properties["name"] == name), None)
