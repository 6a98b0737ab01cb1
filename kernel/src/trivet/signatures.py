"""A model's own account of its inputs and outputs: configurations completed from it, and checked against it.

For backends whose files say what their tensors are. The rules and messages are those that Triton's backends share
(``ONNX Runtime`` and ``TensorFlow``), since people search for them.
Source: Triton model configuration, "Auto-Generated Model Configuration"; ``CompareDims`` of Triton's backends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from trivet.config import ModelConfig
from trivet.datatypes import BY_CONFIG_VALUE, DataType
from trivet.errors import InvalidArgumentError

DEFAULT_MAX_BATCH_SIZE = 4
"""What auto-completion gives a model that can batch, where ``default-max-batch-size`` of the backend says nothing."""


class TensorSignature(Protocol):
    """One input or output of a model, as its file has it."""

    @property
    def name(self) -> str:
        """What a configuration calls it."""
        ...

    @property
    def datatype(self) -> DataType | None:
        """The element type; ``None`` for one that requests cannot carry."""
        ...

    @property
    def framework_type(self) -> str:
        """The element type in the framework's own words, for messages."""
        ...

    @property
    def dims(self) -> tuple[int, ...] | None:
        """With the batch dimension; -1 is any size. Empty for a scalar; ``None`` where even the rank is open."""
        ...


S = TypeVar("S", bound=TensorSignature)


def scheduler_inputs(config: ModelConfig) -> list[str]:
    """Inputs that no request has, since a scheduler makes them: sequence controls, states, batch inputs; in order."""
    sequence = config.sequence_batching
    return [
        *(control.name for control in sequence.control_input),
        *(state.input_name for state in sequence.state),
        *(name for batch_input in config.batch_input for name in batch_input.target_name),
    ]


def is_complete(config: ModelConfig) -> bool:
    """Whether inputs and outputs are described: then, as in Triton, nothing is filled in, not ``max_batch_size``
    either.
    """
    return bool((config.input or config.batch_input) and config.output)


def model_dims(message: Any) -> tuple[int, ...]:
    """The dimensions of a ``ModelInput`` or ``ModelOutput`` as its model has them: after ``reshape``, without a batch.

    -1 is any size. Empty where ``reshape`` says so, or where nothing is configured.
    """
    return tuple(message.reshape.shape if message.HasField("reshape") else message.dims)


def can_batch(tensors: Iterable[TensorSignature]) -> bool:
    """Whether all have a first dimension of any size, as a batch needs."""
    return all(tensor.dims is not None and tensor.dims[:1] == (-1,) for tensor in tensors)


def batching_hint(config: ModelConfig, inputs: Mapping[str, S], outputs: Mapping[str, S]) -> bool | None:
    """Whether the dimensions that are configured leave out a batch; ``None`` where there are none to tell.

    That a model can batch does not say that it is meant to. Raises :class:`~trivet.errors.InvalidArgumentError` where
    some leave it out and some do not.
    """
    hints = set()
    for known, messages in ((inputs, config.input), (outputs, config.output)):
        for message in messages:
            model = known.get(message.name)
            dims = model_dims(message)
            if model is not None and model.dims is not None and (dims or message.HasField("reshape")):
                hints.add(len(model.dims) == len(dims) + 1)
    if len(hints) > 1:
        raise InvalidArgumentError(
            f"unable to autofill for '{config.name}', model tensor configurations are contradicting each other in terms"
            " of whether batching is supported"
        )
    return next(iter(hints), None)


def complete_max_batch_size(
    config: ModelConfig, allowed: float, default_max_batch_size: int, logger: logging.Logger
) -> None:
    """Fill in ``max_batch_size`` of a model that takes batches of up to ``allowed``, and then ``dynamic_batching``.

    ``allowed`` is 0 for a model that does not batch, and :data:`math.inf` for one that takes any number of rows.
    ``max_batch_size`` only where the configuration says nothing, and ``dynamic_batching`` only where that is more than
    1 and no scheduler is chosen. The caller has checked that ``config.max_batch_size`` is not more than ``allowed``.
    """
    if config.max_batch_size == 0 and allowed and default_max_batch_size > 0:
        config.max_batch_size = int(min(default_max_batch_size, allowed))
        logger.info(
            "model '%s' supports batching and its configuration gives no max_batch_size: set to %d",
            config.name,
            config.max_batch_size,
        )
    if config.max_batch_size > 1 and config.WhichOneof("scheduling_choice") is None:
        config.dynamic_batching.SetInParent()


def add_tensor(target: Any, name: str, datatype: DataType, dims: Sequence[int], *, batches: bool) -> Any:
    """Describe a tensor in ``config.input`` or ``config.output``, and return what was added.

    ``dims`` include the batch dimension, if any.
    """
    tensor = target.add(name=name, data_type=datatype.config_value)
    set_dims(tensor, dims, batches=batches)
    return tensor


def set_dims(tensor: Any, dims: Sequence[int], *, batches: bool) -> None:
    """Fill in the dimensions of a ``ModelInput`` or ``ModelOutput`` that has none."""
    own = dims[1:] if batches else dims
    tensor.dims.extend(own or (1,))
    if not own and batches:
        # A configuration cannot say "no dimensions"; an empty reshape takes the 1 away again.
        tensor.reshape.SetInParent()


def find_tensor(name: str, what: str, known: Mapping[str, S]) -> S:
    """The tensor of that name. ``what`` is ``input`` or ``output``.

    Raises :class:`~trivet.errors.InvalidArgumentError` with the names that there are.
    """
    if name not in known:
        raise InvalidArgumentError(
            f"unexpected inference {what} '{name}', allowed {what}s are: {', '.join(sorted(known))}"
        )
    return known[name]


def unsupported_type(config: ModelConfig, name: str, what: str, model: TensorSignature) -> InvalidArgumentError:
    """The error for a tensor that no request could carry."""
    return InvalidArgumentError(
        f"unable to load model '{config.name}', unsupported type {model.framework_type} for {what} '{name}'"
    )


def another_type(
    config: ModelConfig, name: str, configured: DataType, what: str, provided: DataType
) -> InvalidArgumentError:
    """The error for a tensor whose configured element type is not the model's."""
    return InvalidArgumentError(
        f"unable to load model '{config.name}', configuration expects datatype {configured.config_name} for {what}"
        f" '{name}', model provides {provided.config_name}"
    )


def check_datatype(config: ModelConfig, name: str, data_type: int, what: str, model: TensorSignature) -> None:
    """Compare the configured ``data_type`` (of ``model_config.proto``) with the model's.

    Raises :class:`~trivet.errors.InvalidArgumentError` where they differ, or no request could carry the model's.
    """
    configured = BY_CONFIG_VALUE[data_type]
    if model.datatype is None:
        raise unsupported_type(config, name, what, model)
    if configured is not model.datatype:
        raise another_type(config, name, configured, what, model.datatype)


def check_dims(config: ModelConfig, message: Any, model: TensorSignature, *, exact: bool) -> None:
    """Compare the shape of a ``ModelInput`` or ``ModelOutput`` with the model's.

    ``exact`` is for outputs: a variable dimension must be variable in the configuration too, as a caller would else be
    told a size that need not come. Nothing is wrong where the model leaves the rank open. Raises
    :class:`~trivet.errors.InvalidArgumentError` where they differ.
    """
    if model.dims is None:
        return
    dims = model_dims(message)
    if not model.dims:
        if any(dim != 1 for dim in dims):
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', scalar tensor '{message.name}', should only provide 1 in the"
                " model configuration when the model doesn't support batching. Model configuration provided:"
                f" {shape_text(dims)}."
            )
        return
    if config.max_batch_size > 0:
        if not can_batch((model,)):
            raise InvalidArgumentError(
                f"model '{config.name}', tensor '{message.name}': for the model to support batching the shape should"
                " have at least 1 dimension and the first dimension must be -1; but shape expected by the model is"
                f" {shape_text(model.dims)}"
            )
        full = (-1, *dims)
        says = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit"
            f" tensor shape, making complete shape {shape_text(full)})"
        )
    else:
        full = dims
        says = f"{len(full)} dimensions (shape {shape_text(full)})"
    fits = len(full) == len(model.dims) and all(
        mine == theirs or (theirs == -1 and not exact) for mine, theirs in zip(full, model.dims, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(
            f"model '{config.name}', tensor '{message.name}': the model expects {len(model.dims)} dimensions (shape"
            f" {shape_text(model.dims)}) but the model configuration specifies {says}"
        )


def check_ragged(config: ModelConfig, name: str, model: TensorSignature) -> None:
    """Raise :class:`~trivet.errors.InvalidArgumentError` unless the model takes an input as one long row."""
    if model.dims != (-1,):
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects model provides input with shape [-1]"
            f" for ragged input '{name}', model provides"
            f" {model.framework_type if model.dims is None else shape_text(model.dims)}"
        )


def shape_text(shape: Sequence[int]) -> str:
    """As Triton writes shapes: ``[-1,3]``."""
    return f"[{','.join(map(str, shape))}]"
