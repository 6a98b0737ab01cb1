"""Running a model's ``auto_complete_config`` and putting what it says into the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trivet.backend import ModelContext
from trivet.config import normalize, to_dict, to_json
from trivet.datatypes import BY_CONFIG_NAME
from trivet.errors import InternalError, InvalidArgumentError
from trivet.placement import gpu_count

from trivet_backend_python.failures import describe
from trivet_backend_python.pb_utils.model_config import ModelConfig
from trivet_backend_python.plugin import OFFER

_COMPLETED = ("max_batch_size", "input", "output", "dynamic_batching", "model_transaction_policy")


def auto_complete(model_class: Any, context: ModelContext) -> None:
    """Complete ``context.config`` in place. A class without ``auto_complete_config`` leaves it as it is.

    Raises :class:`~trivet.errors.InternalError` with the model's exception, as Triton does for a model that contradicts
    its configuration, and :class:`~trivet.errors.InvalidArgumentError` for values that no configuration can have.
    """
    complete = getattr(model_class, "auto_complete_config", None)
    if complete is None:
        return
    config = context.config
    # As in Triton, the model sees its configuration with the defaults that it will have.
    shown = type(config)()
    shown.CopyFrom(config)
    normalize(shown, backend=OFFER, gpu_count=gpu_count())
    try:
        completed = complete(ModelConfig(to_json(shown)))
    except BaseException as error:
        raise InternalError(describe(error)) from error
    if not isinstance(completed, ModelConfig):
        raise InternalError(
            f"auto_complete_config function in model '{context.name}' must return a valid pb.ModelConfig object."
        )
    values = completed.as_dict()
    _warn_of_changes(context, to_dict(shown), values)
    _merge(context, "input", config.input, values["input"])
    _merge(context, "output", config.output, values["output"])
    config.max_batch_size = values["max_batch_size"]
    if "dynamic_batching" in values:
        config.dynamic_batching.SetInParent()
    if "decoupled" in values.get("model_transaction_policy", {}):
        config.model_transaction_policy.decoupled = values["model_transaction_policy"]["decoupled"]


def _warn_of_changes(context: ModelContext, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Triton takes over what the methods of ``ModelConfig`` set, and nothing else that was written into the dict."""
    for key in sorted(before.keys() | after.keys()):
        if key not in _COMPLETED and before.get(key) != after.get(key):
            context.logger.warning(
                "auto_complete_config of model '%s' changed '%s' in as_dict(), which has no effect; set it in the"
                " model's configuration file",
                context.name,
                key,
            )


def _merge(context: ModelContext, kind: str, tensors: Any, completed: Iterable[dict[str, Any]]) -> None:
    existing = {tensor.name: tensor for tensor in tensors}
    for properties in completed:
        name = properties["name"]
        tensor = existing.get(name) or tensors.add(name=name)
        datatype = BY_CONFIG_NAME.get(properties["data_type"])
        if datatype is not None:
            tensor.data_type = datatype.config_value
        elif properties["data_type"] != "TYPE_INVALID":
            raise InvalidArgumentError(
                f"auto_complete_config of model '{context.name}' gives {kind} '{name}' the data_type"
                f" {properties['data_type']!r}; expected one of {', '.join(BY_CONFIG_NAME)}"
            )
        tensor.dims[:] = _dims(context, kind, name, properties["dims"])
        if kind == "input" and properties.get("optional"):
            tensor.optional = True


def _dims(context: ModelContext, kind: str, name: str, dims: Sequence[Any]) -> list[int]:
    try:
        return [int(dim) for dim in dims]
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"auto_complete_config of model '{context.name}' gives {kind} '{name}' the dims {dims!r}; expected a list"
            " of integers"
        ) from None
