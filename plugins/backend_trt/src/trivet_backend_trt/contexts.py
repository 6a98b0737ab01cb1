"""Execution contexts: one for each profile of an instance, with what TensorRT calls back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trivet.errors import InternalError, TrivetError

from trivet_backend_trt import library
from trivet_backend_trt.device import Stream
from trivet_backend_trt.engine import Engine
from trivet_backend_trt.memory import Block, Pool
from trivet_backend_trt.profiles import Profile, Sizes

USER_MANAGED = "USER_MANAGED"


class Context:
    """An ``IExecutionContext`` with one profile, on an instance's stream and thread."""

    def __init__(self, engine: Engine, profile: Profile, strategy: str, stream: Stream, *, graphs: bool) -> None:
        """Raises :class:`~trivet.errors.ResourceExhaustedError` without device memory for it."""
        self.profile = profile
        self._stream = stream
        self._context, self._config = engine.create_context(strategy, graphs=graphs)
        self._shapes: dict[str, Sizes] = {}
        self._allocators: dict[str, Any] = {}
        self._make_allocator = _allocator_class(engine.trt)
        with library.collecting_errors() as errors:
            try:
                done = self._context.set_optimization_profile_async(profile.index, stream.handle)
            except RuntimeError:  # the bindings', in place of an answer
                done = False
            if not done:
                raise _failed(f"failed to set optimization profile {profile.index}", errors)
            # The first execution may be on a graph's capture, which takes no other work.
            stream.wait()

    def lend(self, memory: Block) -> None:
        """Device memory to execute in, which contexts of one stream may share (``USER_MANAGED``)."""
        self._context.set_device_memory(memory.address, memory.byte_size)

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, Sizes]) -> None:
        """Where inputs are, and their shapes; shape tensors are on the host.

        Raises :class:`~trivet.errors.InternalError` with TensorRT's reason.
        """
        context = self._context
        with library.collecting_errors() as errors:
            for name, shape in shapes.items():
                if self._shapes.get(name) != shape:
                    if not context.set_input_shape(name, shape):
                        self._shapes.pop(name, None)
                        raise _failed(f"failed to set the shape of input '{name}' to {list(shape)}", errors)
                    self._shapes[name] = shape
                if not context.set_tensor_address(name, addresses[name]):
                    raise _failed(f"failed to set the address of input '{name}'", errors)
            try:
                missing = context.infer_shapes()
            except RuntimeError as error:
                raise _failed(f"failed to infer shapes from {dict(shapes)}", errors or [str(error)]) from error
            if missing:
                raise _failed(f"inputs {', '.join(missing)} are not completely specified", errors)

    def output_shape(self, name: str) -> Sizes:
        """For the inputs that are bound; -1 is a size that only the execution tells."""
        return tuple(self._context.get_tensor_shape(name))

    def bind_output(self, name: str, address: int) -> None:
        """Where an output goes."""
        if not self._context.set_tensor_address(name, address):
            raise InternalError(f"failed to set the address of output '{name}'")

    def allocate_output(self, name: str, pool: Pool) -> None:
        """Let executions themselves ask ``pool`` for memory of an output whose size only they tell.

        Once for all executions, as the bindings keep every allocator that they are given for as long as the context.
        """
        if name not in self._allocators:
            allocator = self._make_allocator(pool)
            if not self._context.set_output_allocator(name, allocator):
                raise InternalError(f"failed to set an allocator for output '{name}'")
            self._allocators[name] = allocator

    def allocated(self, name: str) -> tuple[Block | None, Sizes]:
        """Memory and shape of such an output, for the execution that has been enqueued. It is the caller's."""
        return self._allocators[name].taken()  # type: ignore[no-any-return]

    def enqueue(self) -> None:
        """Begin to execute. Raises :class:`~trivet.errors.InternalError` with TensorRT's reason."""
        with library.collecting_errors() as errors:
            if not self._context.execute_async_v3(self._stream.handle):
                raise self._out_of_memory() or _failed("failed to enqueue TensorRT execution", errors)

    def _out_of_memory(self) -> TrivetError | None:
        """What an allocator could not raise. It is taken from there: with its traceback it would be a cycle."""
        errors = []
        for allocator in self._allocators.values():
            errors.append(allocator.error)
            allocator.error = None
        return next(filter(None, errors), None)

    def close(self) -> None:
        """Free it; nothing is executing."""
        self._context = self._config = None
        self._allocators.clear()


def _failed(what: str, errors: Sequence[str]) -> InternalError:
    return InternalError(f"{what}: {library.reasons(errors, 'no reason given')}")


@cache
def _allocator_class(trt: Any) -> Any:
    """An ``IOutputAllocator`` of a module. Called while ``execute_async_v3`` runs, on its thread."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self, pool: Pool) -> None:
            trt.IOutputAllocator.__init__(self)
            self._pool = pool
            self.block: Block | None = None
            self.shape: Sizes = ()
            self.error: TrivetError | None = None

        def taken(self) -> tuple[Block | None, Sizes]:
            block, self.block = self.block, None
            return block, self.shape

        def reallocate_output(self, name: str, memory: int | None, size: int, alignment: int) -> int:
            # An exception would pass through C++; no memory makes TensorRT give up with a reason.
            if self.block is None or self.block.byte_size < size:
                self.block = None
                try:
                    self.block = self._pool.take(size)
                except TrivetError as error:
                    self.error = error
                    return 0
            return self.block.address

        def reallocate_output_async(self, name: str, memory: int | None, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator


def create_contexts(
    engine: Engine, profiles: Sequence[Profile], strategy: str, stream: Stream, pool: Pool, *, graphs: bool
) -> tuple[list[Context], Block | None]:
    """A context for each profile, and with ``USER_MANAGED`` the one block of memory in which all of them execute."""
    contexts = [Context(engine, profile, strategy, stream, graphs=graphs) for profile in profiles]
    if strategy != USER_MANAGED:
        return contexts, None
    memory = pool.take(max(engine.context_bytes(profile.index) for profile in profiles))
    for made in contexts:
        made.lend(memory)
    return contexts, memory
