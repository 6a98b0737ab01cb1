"""The CUDA graphs of an instance: captured as it is created, and launched in place of executions.

A graph holds on to addresses, so that its inputs are copied to where it reads, and its outputs from where it writes:
memory of their own. It holds on to the state of the context that it was captured from too, which must not be used for
anything else: each has a context of its own, and all of these share the memory that they execute in, since one executes
at a time. Source: TensorRT's developer guide, "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.backend import ModelContext
from trivet.errors import InternalError, InvalidArgumentError, with_context

from trivet_backend_trt.contexts import USER_MANAGED, Context
from trivet_backend_trt.device import Graph, Stream
from trivet_backend_trt.engine import Engine
from trivet_backend_trt.graphs import GraphShapes, GraphTable, graph_shapes
from trivet_backend_trt.memory import Block, Buffer, Pool, byte_size
from trivet_backend_trt.profiles import Profile, Sizes, choose


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, the context that it was captured from, and the shapes of its outputs."""

    graph: Graph
    context: Context
    output_shapes: Mapping[str, Sizes]


class Graphs:
    """On an instance's thread."""

    def __init__(
        self, context: ModelContext, engine: Engine, contexts: Sequence[Context], stream: Stream, pool: Pool
    ) -> None:
        """Capture what the configuration asks for; a model that cannot have graphs has none, and a warning.

        ``contexts`` are the instance's, one for each profile; ``pool`` has memory to execute in. Raises
        :class:`~trivet.errors.InvalidArgumentError` for a specification that does not fit the plan, and
        :class:`~trivet.errors.ResourceExhaustedError` without memory.
        """
        self._model = context.name
        self._engine = engine
        self._signature = signature = engine.signature
        self._stream = stream
        self._profiles = [executing.profile for executing in contexts]
        self._contexts = {executing.profile.index: executing for executing in contexts}
        self._memory: Block | None = None
        self._captured: list[Captured] = []
        self.buffers = {name: Buffer(stream) for name in (*signature.inputs, *signature.outputs)}
        wanted = graph_shapes(context.config, signature, self._profiles[0])
        ragged = context.config.batch_input or any(message.allow_ragged_batch for message in context.config.input)
        reason = "the size of its ragged inputs is another in each batch" if ragged else self._obstacle(wanted)
        if not reason:
            profiles = {self._profile(shapes).index for shapes in wanted}
            self._memory = pool.take(max((engine.context_bytes(index) for index in profiles), default=0))
            try:
                for shapes in wanted:
                    self._captured.append(self._capture(shapes, self._memory))
            except InternalError as error:
                reason = error.message
                self._drop()
        if reason:
            context.logger.warning("model '%s' asks for CUDA graphs, and has none: %s", self._model, reason)
        self._table = GraphTable(list(zip(wanted, self._captured, strict=True)) if self._captured else ())

    def find(self, shapes: Mapping[str, Sizes]) -> Captured | None:
        """The graph for an execution with these input shapes; ``None`` where none was captured."""
        return self._table.find(shapes)

    def close(self) -> None:
        """Free graphs and memory; nothing is executing."""
        self._table = GraphTable()
        self._drop()
        for buffer in self.buffers.values():
            buffer.close()

    def _drop(self) -> None:
        """The graphs, then their contexts, then the memory that these executed in."""
        contexts = [captured.context for captured in self._captured]
        self._captured.clear()
        for context in contexts:
            context.close()
        self._memory = None

    def _obstacle(self, wanted: Sequence[GraphShapes]) -> str | None:
        """Why there can be no graphs. Gives the buffers the sizes that all of them need, and so their addresses."""
        tensors = (*self._signature.inputs.values(), *self._signature.outputs.values())
        for tensor in tensors:
            if tensor.is_shape_tensor:
                return f"a graph would hold on to the values of shape tensor '{tensor.name}'"
        for shapes in wanted:
            for name, shape in self._bind(self._contexts[self._profile(shapes).index], shapes).items():
                if -1 in shape:
                    return f"only an execution tells the size of output '{name}'"
        return None

    def _bind(self, context: Context, wanted: GraphShapes) -> dict[str, Sizes]:
        """Bind inputs and outputs; returns the shapes of the outputs."""
        inputs, outputs = self._signature.inputs, self._signature.outputs
        context.bind(
            {name: self._reserve(name, shape, inputs[name].element_bytes) for name, shape in wanted.shapes.items()},
            wanted.shapes,
        )
        shapes = {name: context.output_shape(name) for name in outputs}
        for name, shape in shapes.items():
            if -1 not in shape:
                context.bind_output(name, self._reserve(name, shape, outputs[name].element_bytes))
        return shapes

    def _capture(self, wanted: GraphShapes, memory: Block) -> Captured:
        context = Context(self._engine, self._profile(wanted), USER_MANAGED, self._stream, graphs=False)
        context.lend(memory)
        shapes = self._bind(context, wanted)
        # Once without: TensorRT makes what it needs at the first execution with these shapes, which no graph may hold.
        context.enqueue()
        self._stream.wait()
        return Captured(self._stream.capture(context.enqueue), context, shapes)

    def _profile(self, wanted: GraphShapes) -> Profile:
        try:
            return choose(self._profiles, wanted.shapes, {}, self._model)
        except InvalidArgumentError as error:
            raise with_context(error, f"graph_spec of model '{self._model}': ") from error

    def _reserve(self, name: str, shape: Sizes, element_bytes: int) -> int:
        return self.buffers[name].reserve(byte_size(shape, element_bytes))
