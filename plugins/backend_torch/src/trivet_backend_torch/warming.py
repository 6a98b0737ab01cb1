"""``torch.compile`` compiles when it is first called. That is done while the model loads, not under a request."""

from __future__ import annotations

import logging

import numpy as np
from trivet.backend import ModelContext
from trivet.datatypes import BY_CONFIG_VALUE, BYTES
from trivet.tensor import Tensor

from trivet_backend_torch.instance import TorchInstance


def compile_now(context: ModelContext, instance: TorchInstance, logger: logging.Logger) -> None:
    """Run a compiled model on zeros, for batches of one, two and as many as are allowed.

    PyTorch takes a size of one for itself, the second for a constant, and compiles for any with the third. Inputs of
    variable size are left to ``model_warmup``. Raises what the run raises: then the model is not to become ready.
    """
    config = context.config
    largest = config.max_batch_size
    sizes = sorted({1, min(2, largest), largest}) if largest > 0 else [0]
    if any(dim < 0 for message in config.input for dim in message.dims):
        logger.warning(
            "model '%s' has inputs of variable size, so that it is not compiled before it is ready; give samples of the"
            " usual sizes in model_warmup",
            context.name,
        )
        return
    for size in sizes:
        inputs = {}
        for message in config.input:
            dims = tuple(message.reshape.shape) if message.HasField("reshape") else tuple(message.dims)
            datatype = BY_CONFIG_VALUE[message.data_type]
            shape = (size, *dims) if largest > 0 else dims
            array = np.zeros(shape, datatype.numpy)
            if datatype is BYTES:
                array.fill(b"")
            inputs[message.name] = Tensor.from_numpy(message.name, array, datatype)
        instance.execute(inputs, [message.name for message in config.output])
