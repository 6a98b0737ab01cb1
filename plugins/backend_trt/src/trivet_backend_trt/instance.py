"""An instance: contexts on one stream, executed on its own thread over whole batches.

A tensor on the host goes through pinned memory, one that is on this GPU is read where it is; an output that the caller
wants in a region stays on the GPU. The thread waits for its own stream once, before it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.backend import ArrayInstance, ModelContext, OutputValue
from trivet.datatypes import DataType
from trivet.errors import InternalError, InvalidArgumentError
from trivet.signatures import model_dims
from trivet.tensor import Tensor

from trivet_backend_trt.captured import Captured, Graphs
from trivet_backend_trt.contexts import create_contexts
from trivet_backend_trt.device import Device, Stream
from trivet_backend_trt.engine import Engine
from trivet_backend_trt.memory import Block, Buffer, DeviceResult, Pool, byte_size
from trivet_backend_trt.placing import Place, place_of
from trivet_backend_trt.profiles import Profile, Sizes, choose
from trivet_backend_trt.settings import Settings
from trivet_backend_trt.signature import TensorSignature
from trivet_backend_trt.staging import Staging


@dataclass(slots=True)
class _Given:
    """The inputs of one execution. What it reads must stay until it is done."""

    shapes: dict[str, Sizes] = field(default_factory=dict)
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Of shape tensors, on the host."""
    places: dict[str, Place] = field(default_factory=dict)
    """Of the others, on the device."""


class TensorRTInstance(ArrayInstance):
    """Executes a plan. TensorRT and CUDA release the interpreter lock."""

    def __init__(
        self, context: ModelContext, settings: Settings, engine: Engine, profiles: Sequence[Profile], device: Device
    ) -> None:
        """On the instance's thread, whose current device is ``device``.

        Raises :class:`~trivet.errors.ResourceExhaustedError` without memory, and
        :class:`~trivet.errors.InvalidArgumentError` for graphs that the plan cannot have.
        """
        self._name = context.name
        self._batches = context.config.max_batch_size > 0
        self._inputs, self._outputs = engine.signature.inputs, engine.signature.outputs
        # A configuration cannot say "no dimensions"; callers see what it says.
        self._scalars = {
            output.name: model_dims(output) for output in context.config.output if not self._outputs[output.name].dims
        }
        self._stream = stream = Stream(device, settings.priority, busy_wait=settings.busy_wait)
        self._device_pool = Pool(stream.allocate, stream.free)
        self._buffers = {name: Buffer(stream) for name in (*self._inputs, *self._outputs)}
        self._staging = Staging(context)
        self.batch_memory = self._staging.inputs
        self.batch_gpu_memory = context.gpu_memory
        self._graphs: Graphs | None = None
        contexts, self._memory = create_contexts(
            engine, profiles, settings.strategy, stream, self._device_pool, graphs=settings.graphs
        )
        self._contexts = {created.profile.index: created for created in contexts}
        self._profiles = [created.profile for created in contexts]
        if settings.graphs and not engine.captures_graphs:
            self._graphs = Graphs(context, engine, contexts, stream, self._device_pool)

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        """One execution over the whole batch. Outputs are host arrays, or on the GPU where they are wanted there.

        Raises :class:`~trivet.errors.InvalidArgumentError` for shapes that no profile takes,
        :class:`~trivet.errors.ResourceExhaustedError` without memory, and :class:`~trivet.errors.InternalError` with
        TensorRT's or CUDA's message where the execution fails.
        """
        given = self._describe(inputs)
        graph = self._graphs.find(given.shapes) if self._graphs is not None else None
        try:
            if graph is not None:
                return self._launch(graph, inputs, given, outputs)
            return self._run(inputs, given, outputs)
        except BaseException:
            self._settle()
            raise

    def _describe(self, inputs: Mapping[str, Tensor]) -> _Given:
        given = _Given()
        for name, signature in self._inputs.items():
            if name not in inputs:
                raise InvalidArgumentError(f"input '{name}' is required by model '{self._name}' and was not given")
            shape = inputs[name].shape
            if signature.is_shape_tensor:
                given.values[name] = values = self._shape_values(inputs, name)
                shape = values.shape
            given.shapes[name] = shape if signature.dims else ()
        return given

    def _shape_values(self, inputs: Mapping[str, Tensor], name: str) -> NDArray[Any]:
        values = np.ascontiguousarray(inputs[name].numpy(), _datatype(self._inputs[name]).numpy).reshape(-1)
        if not self._batches:
            return values
        # As in Triton the first value is the batch, which no caller gives.
        rows = next((inputs[other].shape[0] for other, own in self._inputs.items() if not own.is_shape_tensor), 1)
        return np.concatenate([np.array([rows], values.dtype), values])

    def _run(self, inputs: Mapping[str, Tensor], given: _Given, outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        values = {name: tuple(array.tolist()) for name, array in given.values.items()}
        context = self._contexts[choose(self._profiles, given.shapes, values, self._name).index]
        self._place_inputs(inputs, given, self._buffers, in_place=True)
        addresses = {name: array.ctypes.data for name, array in given.values.items()}
        context.bind(addresses | {name: place.address for name, place in given.places.items()}, given.shapes)

        sources: dict[str, tuple[int, Sizes]] = {}
        results: dict[str, OutputValue] = {}
        allocated: dict[str, Block | None] = {}
        shape_outputs: dict[str, NDArray[Any]] = {}
        for name, signature in self._outputs.items():
            shape = context.output_shape(name)
            if signature.is_shape_tensor:
                shape_outputs[name] = array = np.empty(self._scalars.get(name, shape), _datatype(signature).numpy)
                context.bind_output(name, array.ctypes.data)
            elif -1 in shape:
                context.allocate_output(name, self._device_pool)
                allocated[name] = None
            else:
                address = self._stays(name, shape, results) if name in outputs else None
                if address is None:
                    address = self._buffers[name].reserve(byte_size(shape, signature.element_bytes))
                    sources[name] = address, shape
                context.bind_output(name, address)
        context.enqueue()
        for name in allocated:
            # Kept until it has been copied.
            block, shape = context.allocated(name)
            allocated[name] = block
            if name in self.placed:
                results[name] = self._left(name, block, shape)
            else:
                sources[name] = block.address if block else 0, shape
        fetched = self._fetch({name: source for name, source in sources.items() if name in outputs})
        return {**results, **fetched, **{name: array for name, array in shape_outputs.items() if name in outputs}}

    def _launch(
        self, graph: Captured, inputs: Mapping[str, Tensor], given: _Given, outputs: Sequence[str]
    ) -> Mapping[str, OutputValue]:
        """By a graph; of one that was captured for a larger batch, the rows that were asked for."""
        assert self._graphs is not None
        buffers = self._graphs.buffers
        self._place_inputs(inputs, given, buffers, in_place=False)
        self._stream.launch(graph.graph)
        rows = next(iter(given.shapes.values()), ())[:1] if self._batches else ()
        sources: dict[str, tuple[int, Sizes]] = {}
        results: dict[str, OutputValue] = {}
        for name in outputs:
            shape = (*rows, *graph.output_shapes[name][len(rows) :])
            target = self._stays(name, shape, results)
            if target is None:
                sources[name] = buffers[name].address, shape
            else:
                size = byte_size(shape, self._outputs[name].element_bytes)
                self._stream.copy(target, buffers[name].address, size)
        return {**results, **self._fetch(sources)}

    # --- inputs

    def _place_inputs(
        self, inputs: Mapping[str, Tensor], given: _Given, buffers: Mapping[str, Buffer], *, in_place: bool
    ) -> None:
        """Each input where TensorRT reads it: where it is, or in a buffer, into which a copy has begun."""
        for name, signature in self._inputs.items():
            if not signature.is_shape_tensor:
                there = place_of(inputs[name], self._stream)
                if there is None or not in_place or not there.aligned:
                    there = self._copy_in(inputs[name], signature, there, buffers[name])
                given.places[name] = there

    def _copy_in(self, tensor: Tensor, signature: TensorSignature, there: Place | None, buffer: Buffer) -> Place:
        size = byte_size(tensor.shape, signature.element_bytes)
        address = buffer.reserve(size)
        keeps: object = there
        if there is not None:
            source = there.address
        else:
            keeps = array = self._staging.outgoing(tensor.numpy())
            source = array.ctypes.data
        if size:
            self._stream.copy(address, source, size)
        return Place(address, keeps)

    # --- outputs

    def _stays(self, name: str, shape: Sizes, results: dict[str, OutputValue]) -> int | None:
        """Memory for an output that goes into a region there, and stays on the device until then; ``None`` for another.

        It is not computed into the region itself: a caller that gives up may use that for something else at once.
        """
        if name not in self.placed:
            return None
        block = self._device_pool.take(byte_size(shape, self._outputs[name].element_bytes))
        results[name] = self._left(name, block, shape)
        return block.address

    def _left(self, name: str, block: Block | None, shape: Sizes) -> DeviceResult:
        address = block.address if block is not None else 0
        shape = self._scalars.get(name, shape)
        return DeviceResult(self._stream.device, block, address, _datatype(self._outputs[name]), shape)

    def _fetch(self, sources: Mapping[str, tuple[int, Sizes]]) -> dict[str, OutputValue]:
        """Copy outputs to the host, and wait for everything that was begun."""
        fetched: dict[str, OutputValue] = {}
        for name, (address, shape) in sources.items():
            shown = self._scalars.get(name, shape)
            fetched[name] = array = self._staging.incoming(_datatype(self._outputs[name]).numpy, shown)
            if array.size:
                self._stream.copy(array.ctypes.data, address, array.nbytes)
        self._stream.wait()
        return fetched

    # --- the end

    def _settle(self) -> None:
        """Wait for what was begun before a failure, as it reads and writes memory that goes with it."""
        try:
            self._stream.wait()
        except InternalError:
            return  # an error of the device, which ended all work on it, and is what is being raised

    def close(self) -> None:
        """Free contexts, graphs and buffers; pools go with the last output that somebody still uses."""
        if self._graphs is not None:
            self._graphs.close()
        for context in self._contexts.values():
            context.close()
        for buffer in self._buffers.values():
            buffer.close()


def _datatype(signature: TensorSignature) -> DataType:
    assert signature.datatype is not None, "a configuration with another does not load"
    return signature.datatype
