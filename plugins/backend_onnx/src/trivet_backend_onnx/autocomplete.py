"""Filling in what a configuration leaves out, from the model's own signature.

Source: Triton model configuration, "Auto-Generated Model Configuration", and the ONNX Runtime backend's
``--backend-config=onnxruntime,default-max-batch-size``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import add_tensor, complete_max_batch_size, scheduler_inputs

from trivet_backend_onnx.signature import Signature, TensorSignature


def complete(config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger) -> None:
    """Fill in ``max_batch_size``, ``dynamic_batching``, ``input`` and ``output`` where they are missing.

    A model whose inputs and outputs all have a first dimension of any size can batch. It gets
    ``default_max_batch_size`` where the configuration says nothing, and ``dynamic_batching`` where that is more than 1
    and no scheduler is chosen. Raises :class:`~trivet.errors.InvalidArgumentError` for a ``max_batch_size`` that the
    model cannot have.
    """
    _complete_max_batch_size(config, signature, default_max_batch_size, logger)
    # What a scheduler gives and takes is no caller's.
    given = scheduler_inputs(config)
    taken = {state.output_name for state in config.sequence_batching.state}
    if not config.input:
        inputs = [tensor for name, tensor in signature.inputs.items() if name not in given]
        _complete_tensors(config, config.input, "input", inputs)
    if not config.output:
        outputs = [tensor for name, tensor in signature.outputs.items() if name not in taken]
        _complete_tensors(config, config.output, "output", outputs)


def _complete_max_batch_size(
    config: ModelConfig, signature: Signature, default_max_batch_size: int, logger: logging.Logger
) -> None:
    if not signature.batches and config.max_batch_size > 0:
        raise InvalidArgumentError(
            f"autofill failed for model '{config.name}': model does not support batching while non-zero max_batch_size"
            " is specified"
        )
    complete_max_batch_size(config, math.inf if signature.batches else 0, default_max_batch_size, logger)


def _complete_tensors(config: ModelConfig, target: Any, what: str, signatures: Iterable[TensorSignature]) -> None:
    for signature in signatures:
        if signature.form is None or signature.dims is None or (what == "input" and signature.form != "tensor"):
            raise InvalidArgumentError(
                f"autofill failed for model '{config.name}': Unsupported ONNX Type '{signature.kind}' for I/O"
                f" '{signature.name}', expected 'ONNX_TYPE_TENSOR'; {_remedy(signature, what)}"
            )
        if signature.datatype is None:
            raise InvalidArgumentError(
                f"autofill failed for model '{config.name}': unsupported datatype {signature.onnx_type} for {what}"
                f" '{signature.name}'"
            )
        batches = config.max_batch_size > 0
        tensor = add_tensor(target, signature.name, signature.datatype, signature.dims, batches=batches)
        if what == "input" and signature.optional:
            tensor.optional = True


def _remedy(signature: TensorSignature, what: str) -> str:
    if signature.form == "sequence":
        return "name the inputs and outputs in config.pbtxt with their dims, which the file does not tell of a sequence"
    return "export the model without it" + (
        ", or name the outputs that you want in config.pbtxt" if what == "output" else ""
    )
