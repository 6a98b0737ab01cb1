"""Filling in what a configuration leaves out, from what the model's file tells.

A ``torch.export`` program tells everything. TorchScript, packages of AOTInductor and Python code have names at most,
and no element types and shapes: then the load fails and names the arguments that are to be described.
"""

from __future__ import annotations

import logging
from typing import Any

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import add_tensor, complete_max_batch_size, scheduler_inputs

from trivet_backend_torch.signature import Signature, TensorSpec


def complete(config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger) -> None:
    """Fill in ``max_batch_size``, ``dynamic_batching``, ``input`` and ``output`` where they are missing.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the file does not tell, and for a ``max_batch_size`` that
    the model cannot have.
    """
    needed = [argument for argument in signature.arguments if not argument.optional]
    if not signature.output_specs or any(argument.spec is None for argument in needed):
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': the model's file has no datatypes and shapes, so"
            f" config.pbtxt must describe inputs and outputs; the network takes {signature.described}"
            + (f" and gives {', '.join(signature.outputs)}" if signature.outputs else "")
        )
    _complete_max_batch_size(config, signature, default_max_batch_size, logger)
    given = scheduler_inputs(config)
    taken = {state.output_name for state in config.sequence_batching.state}
    if not config.input:
        for argument in needed:
            if argument.name not in given:
                _add(config, config.input, "input", argument.name, argument.spec)
    if not config.output:
        for name, spec in zip(signature.outputs or (), signature.output_specs, strict=True):
            if name not in taken:
                _add(config, config.output, "output", name, spec)


def _complete_max_batch_size(
    config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger
) -> None:
    allowed = signature.max_batch_size
    if config.max_batch_size > allowed:
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': "
            + (
                f"the program was exported for batches of at most {allowed}"
                if allowed
                else "model does not support batching while non-zero max_batch_size is specified"
            )
        )
    complete_max_batch_size(config, allowed, default_max_batch_size, logger)


def _add(config: ModelConfig, target: Any, what: str, name: str, spec: TensorSpec | None) -> None:
    if spec is None or spec.datatype is None:
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': {what} '{name}' has a datatype that requests cannot carry"
        )
    add_tensor(target, name, spec.datatype, spec.dims, batches=config.max_batch_size > 0)
