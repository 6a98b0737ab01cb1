"""The CUDA graphs of an instance: captured as it is created, and launched in place of executions.

A graph holds on to addresses, so that its inputs are copied to where it reads, and its outputs from where it writes:
memory of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.backend import ModelContext
from trivet.errors import InternalError, InvalidArgumentError, with_context

from trivet_backend_trt.contexts import Context
from trivet_backend_trt.device import Graph, Stream
from trivet_backend_trt.graphs import GraphShapes, GraphTable, graph_shapes
from trivet_backend_trt.memory import Buffer, byte_size
from trivet_backend_trt.profiles import Sizes, choose
from trivet_backend_trt.signature import Signature


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, and the shapes of its outputs."""

    graph: Graph
    output_shapes: Mapping[str, Sizes]


class Graphs:
    """On an instance's thread."""

    def __init__(
        self, context: ModelContext, signature: Signature, contexts: Sequence[Context], stream: Stream
    ) -> None:
        """Capture what the configuration asks for; a model that cannot have graphs has none, and a warning.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a specification that does not fit the plan.
        """
        self._model = context.name
        self._signature = signature
        self._stream = stream
        self._profiles = [executing.profile for executing in contexts]
        self._contexts = {executing.profile.index: executing for executing in contexts}
        self.buffers = {name: Buffer(stream) for name in (*signature.inputs, *signature.outputs)}
        wanted = graph_shapes(context.config, signature, self._profiles[0])
        ragged = context.config.batch_input or any(message.allow_ragged_batch for message in context.config.input)
        reason = "the size of its ragged inputs is another in each batch" if ragged else self._obstacle(wanted)
        captured: list[tuple[GraphShapes, Captured]] = []
        if not reason:
            try:
                captured = [(shapes, self._capture(shapes)) for shapes in wanted]
            except InternalError as error:
                reason = error.message
        if reason:
            context.logger.warning("model '%s' asks for CUDA graphs, and has none: %s", self._model, reason)
        self._table = GraphTable(captured)

    def find(self, shapes: Mapping[str, Sizes]) -> Captured | None:
        """The graph for an execution with these input shapes; ``None`` where none was captured."""
        return self._table.find(shapes)

    def close(self) -> None:
        """Free graphs and memory; nothing is executing."""
        self._table = GraphTable()
        for buffer in self.buffers.values():
            buffer.close()

    def _obstacle(self, wanted: Sequence[GraphShapes]) -> str | None:
        """Why there can be no graphs. Gives the buffers the sizes that all of them need, and so their addresses."""
        tensors = (*self._signature.inputs.values(), *self._signature.outputs.values())
        for tensor in tensors:
            if tensor.is_shape_tensor:
                return f"a graph would hold on to the values of shape tensor '{tensor.name}'"
        for shapes in wanted:
            for name, shape in self._bind(shapes).items():
                if -1 in shape:
                    return f"only an execution tells the size of output '{name}'"
        return None

    def _bind(self, wanted: GraphShapes) -> dict[str, Sizes]:
        """Bind inputs and outputs of the profile's context; returns the shapes of the outputs."""
        inputs, outputs = self._signature.inputs, self._signature.outputs
        context = self._context(wanted)
        context.bind(
            {name: self._reserve(name, shape, inputs[name].element_bytes) for name, shape in wanted.shapes.items()},
            wanted.shapes,
        )
        shapes = {name: context.output_shape(name) for name in outputs}
        for name, shape in shapes.items():
            if -1 not in shape:
                context.bind_output(name, self._reserve(name, shape, outputs[name].element_bytes))
        return shapes

    def _capture(self, wanted: GraphShapes) -> Captured:
        shapes = self._bind(wanted)
        context = self._context(wanted)
        # Once without: TensorRT makes what it needs at the first execution with these shapes, which no graph may hold.
        context.enqueue()
        self._stream.wait()
        return Captured(self._stream.capture(context.enqueue), shapes)

    def _context(self, wanted: GraphShapes) -> Context:
        try:
            return self._contexts[choose(self._profiles, wanted.shapes, {}, self._model).index]
        except InvalidArgumentError as error:
            raise with_context(error, f"graph_spec of model '{self._model}': ") from error

    def _reserve(self, name: str, shape: Sizes, element_bytes: int) -> int:
        return self.buffers[name].reserve(byte_size(shape, element_bytes))
