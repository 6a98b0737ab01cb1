"""Runs on zeros while a model loads, for what would else be done under the first requests.

``torch.compile`` compiles when it is first called, and CUDA graphs are recorded from a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from trivet.backend import ModelContext
from trivet.config import ModelConfig
from trivet.datatypes import BY_CONFIG_VALUE, BYTES
from trivet.signatures import model_dims, scheduler_inputs
from trivet.tensor import Tensor

from trivet_backend_torch.instance import TorchInstance


def zeros(config: ModelConfig, batch_size: int, dims: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Inputs of zeros (and of empty text), with other dimensions than the configuration's where ``dims`` has them.

    ``batch_size`` is 0 for a model that does not batch. No dimension may be variable.
    """
    inputs = {}
    for message in config.input:
        shape = (dims or {}).get(message.name, model_dims(message))
        datatype = BY_CONFIG_VALUE[message.data_type]
        array = np.zeros((batch_size, *shape) if batch_size else shape, datatype.numpy)
        if datatype is BYTES:
            array.fill(b"")
        inputs[message.name] = Tensor.from_numpy(message.name, array, datatype)
    return inputs


def compile_now(context: ModelContext, instance: TorchInstance, logger: logging.Logger) -> None:
    """Run a compiled model on zeros, for batches of one, two and as many as are allowed.

    PyTorch takes a size of one for itself, the second for a constant, and compiles for any with the third. Inputs of
    variable size, and those that a scheduler makes, are left to ``model_warmup``. Raises what the run raises: then the
    model is not to become ready.
    """
    config = context.config
    if scheduler_inputs(config) or any(dim < 0 for message in config.input for dim in message.dims):
        logger.warning(
            "model '%s' has inputs of variable size or from a scheduler, so that it is not compiled before it is ready;"
            " give samples of the usual sizes in model_warmup",
            context.name,
        )
        return
    largest = config.max_batch_size
    for size in sorted({1, min(2, largest), largest}) if largest > 0 else [0]:
        instance.execute(zeros(config, size), [message.name for message in config.output])
