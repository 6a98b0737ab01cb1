"""Model warmup: requests of the server's own, executed on every instance before the model turns ready.

The first execution of many models is slow, as frameworks allocate, compile and tune then. Samples go the way that
callers' requests go from the instance's queue on. As in Triton they count in the model's statistics.

Source: ``ModelWarmup`` of ``model_config.proto``; Triton model configuration, "Model Warmup".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivet.datatypes import BF16, BOOL, BY_CONFIG_VALUE, BYTES, DataType
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.scheduling import Batch
from trivet.tensor import Buffer, Tensor, decode_bytes, element_count

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.instance import Finished

logger = logging.getLogger(__name__)

WARMUP_FOLDER = "warmup"
"""Where in a model's folder the samples' data files are."""


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a sample, as a client would send it."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    data: Buffer
    """Wire layout, which an instance cannot write to: every request of the sample has the same."""


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """``requests`` equal requests that are executed together, ``count`` times one after the other."""

    name: str
    model_name: str
    model_version: str
    inputs: tuple[WarmupInput, ...]
    requests: int
    count: int

    def batch(self) -> Batch:
        """New requests, each with a batch of one."""
        return Batch([self._request() for _ in range(self.requests)])

    def _request(self) -> InferenceRequest:
        inputs = {each.name: Tensor.from_wire(each.name, each.datatype, each.shape, each.data) for each in self.inputs}
        request = InferenceRequest(self.model_name, inputs, model_version=self.model_version)
        request.queued_ns = request.received_ns
        return request


def read_samples(config: ModelConfig, version: int, model_path: Path) -> tuple[WarmupSample, ...]:
    """The samples of a validated configuration, with their data made or read. Blocks.

    A sample of batch size 0 is left out. Inputs have a batch dimension of 1 where the model batches, also those that a
    scheduler would add. Raises :class:`~trivet.errors.InvalidArgumentError` for a data file that does not fit, and
    :class:`OSError` for one that cannot be read.
    """
    samples: list[WarmupSample] = []
    for message in config.model_warmup:
        if message.batch_size == 0:
            logger.debug("model '%s': skipping batch 0 warmup sample '%s'", config.name, message.name)
            continue
        try:
            inputs = tuple(_read_input(config, name, message.inputs[name], model_path) for name in message.inputs)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"warmup sample '{message.name}': {error}") from None
        samples.append(
            WarmupSample(
                message.name,
                config.name,
                str(version),
                inputs,
                requests=message.batch_size,
                count=max(message.count, 1),
            )
        )
    return tuple(samples)


def run(
    samples: Sequence[WarmupSample], execute: Callable[[Batch], None], next_finished: Callable[[], Finished]
) -> list[Sequence[InferenceRequest]]:
    """Execute all samples in order, each until all its requests have their final response, also those answered late.

    On an instance's thread; ``execute`` is the instance's own, and ``next_finished`` waits for what it posts. Returns
    the requests of each execution. Raises :class:`~trivet.errors.InvalidArgumentError` for the first sample that fails.
    """
    executions: list[Sequence[InferenceRequest]] = []
    for sample in samples:
        for iteration in range(1, sample.count + 1):
            logger.debug(
                "model '%s' is running warmup sample '%s' for iteration %d", sample.model_name, sample.name, iteration
            )
            errors = _run_once(sample.batch(), execute, next_finished, executions)
            if errors:
                what = "".join(f"{error}; " for error in errors)
                raise InvalidArgumentError(f"failed to run warmup sample '{sample.name}': {what}")
    return executions


def _run_once(
    batch: Batch,
    execute: Callable[[Batch], None],
    next_finished: Callable[[], Finished],
    executions: list[Sequence[InferenceRequest]],
) -> list[str]:
    """The messages of the requests that failed."""
    errors: list[str] = []
    unanswered = set(batch.requests)
    execute(batch)
    # What `execute` posts about the batch itself comes too, after answers that were given while it ran.
    executing = 1
    while unanswered or executing:
        finished = next_finished()
        for request, response in finished.responses:
            if response.error is not None:
                errors.append(str(response.error))
            if response.final:
                unanswered.discard(request)
        if finished.batch is not None:
            executing -= 1
            executions.append(finished.executed)
        for request in finished.rescheduled:
            executing += 1
            request.infer_end_ns = 0
            execute(Batch((request,)))
    return errors


def _read_input(config: ModelConfig, name: str, message: Any, model_path: Path) -> WarmupInput:
    datatype = BY_CONFIG_VALUE[message.data_type]
    shape_input = any(tensor.name == name and tensor.is_shape_tensor for tensor in config.input)
    dims = tuple(message.dims)
    count = element_count(dims)
    data: Buffer
    if message.input_data_file:
        data = _read_file(name, model_path / WARMUP_FOLDER / message.input_data_file, datatype, count)
    elif message.random_data and datatype is not BYTES:
        data = _random(datatype, count).tobytes()
    else:
        # An empty string is its length, 0 in four bytes. As in Triton, random text is none at all.
        data = bytes(count * (datatype.itemsize or 4))
    return WarmupInput(name, datatype, (1, *dims) if config.max_batch_size > 0 and not shape_input else dims, data)


def _read_file(name: str, path: Path, datatype: DataType, count: int) -> Buffer:
    """Raw values in wire layout. What is beyond the input's size is not used; strings must be just as many."""
    data = path.read_bytes()
    if datatype is BYTES:
        decode_bytes(name, data, count)
        return data
    wanted = count * datatype.itemsize
    if len(data) < wanted:
        raise InvalidArgumentError(
            f"warmup setting expects {wanted} bytes, but the data provided from {path.name} only has {len(data)} bytes"
        )
    return data[:wanted]


def _random(datatype: DataType, count: int) -> NDArray[Any]:
    """Integers of the whole range, floating-point numbers from 0 to 1: a NaN would show a model nothing of its work."""
    generator = np.random.default_rng()
    if datatype is BOOL:
        return generator.integers(0, 2, count).astype(np.bool_)
    if datatype is BF16:
        # The upper half of a float32 is a bfloat16.
        return (generator.random(count, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    dtype = datatype.numpy
    if dtype.kind == "f":
        return generator.random(count).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, count, dtype, endpoint=True)
