"""CUDA graphs: what a network launches for one shape, recorded while the model loads and replayed as one launch.

Source: ``optimization.cuda`` of a model configuration as Triton's tensorrt_backend reads it, whose batch sizes these
are, and PyTorch's notes on CUDA semantics, "CUDA Graphs", for what a recording must not do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import model_dims, scheduler_inputs

from trivet_backend_torch.devices import Cuda
from trivet_backend_torch.instance import TorchInstance
from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import describe, is_out_of_memory, torch
from trivet_backend_torch.streams import STREAMS
from trivet_backend_torch.warming import zeros

_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
_RUNS_BEFORE = 3
"""What libraries set up in their first runs (workspaces, the choice of an algorithm) cannot be recorded."""

_ATTEMPTS = 3
"""A recording ends with whatever waits for the whole GPU meanwhile, in any library of the process."""
_SPOILT = "previous error during capture"
"""What CUDA says of a recording that something else has ended (``cudaErrorStreamCaptureInvalidated``)."""

_one_at_a_time = threading.Lock()
"""PyTorch records one graph at a time."""


@dataclass(frozen=True, slots=True)
class GraphShape:
    """One shape to record: a batch size, 0 where the model does not batch, and the inputs' dimensions without it."""

    batch_size: int
    dims: Mapping[str, tuple[int, ...]]


def graph_shapes(config: ModelConfig) -> list[GraphShape]:
    """What ``optimization.cuda`` asks to record; nothing where ``graphs`` is not set.

    Without ``graph_spec`` that is small batches, preferred ones and the largest. Raises
    :class:`~trivet.errors.InvalidArgumentError` for shapes that the model cannot have, where inputs of variable size
    have no ``graph_spec``, and where a scheduler makes inputs.
    """
    cuda = config.optimization.cuda
    if not cuda.graphs:
        return []
    if made := scheduler_inputs(config):
        raise InvalidArgumentError(
            f"model '{config.name}': optimization.cuda.graphs cannot be had with inputs that a scheduler makes"
            f" ({', '.join(made)}), whose values are not known while the model loads"
        )
    largest = config.max_batch_size
    if not cuda.graph_spec:
        wanted = {*_BATCH_SIZES, *config.dynamic_batching.preferred_batch_size, largest}
        sizes = sorted(size for size in wanted if size <= largest) if largest else [0]
        return [_shape(config, size, {}) for size in sizes]
    shapes = []
    for spec in cuda.graph_spec:
        if not (1 <= spec.batch_size <= largest if largest else spec.batch_size == 0):
            expected = f"a batch_size from 1 to {largest}" if largest else "no batch_size, as the model does not batch"
            raise InvalidArgumentError(
                f"model '{config.name}': optimization.cuda.graph_spec has batch_size {spec.batch_size}, expected"
                f" {expected}"
            )
        shapes.append(_shape(config, spec.batch_size, {name: tuple(shape.dim) for name, shape in spec.input.items()}))
    return shapes


def _shape(config: ModelConfig, batch_size: int, given: Mapping[str, tuple[int, ...]]) -> GraphShape:
    for message in config.input:
        configured = model_dims(message)
        dims = given.get(message.name, configured)
        fits = len(dims) == len(configured) and all(
            want in (-1, dim) for want, dim in zip(configured, dims, strict=True)
        )
        if not fits or any(dim < 0 for dim in dims):
            raise InvalidArgumentError(
                f"model '{config.name}': optimization.cuda.graphs needs a graph_spec with the shape of input"
                f" '{message.name}' among {list(configured)}, without the batch; it has {list(dims)}"
            )
    return GraphShape(batch_size, given)


class Recorder:
    """Stands for a network's ``forward`` in one instance: replays what was recorded for a shape, else runs it."""

    def __init__(self, network: Network, device: Cuda, model: str) -> None:
        self._model = model
        self._call = network.forward
        self._device = device
        self._recorded: dict[Any, _Recorded] = {}
        self._recording = False
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        leaves, structure = torch.utils._pytree.tree_flatten((arguments, keywords))
        key = (structure, *(_kind(leaf) for leaf in leaves))
        if self._recording:
            self._recorded[key] = self._record(leaves, structure)
        recorded = self._recorded.get(key)
        return self._call(*arguments, **keywords) if recorded is None else recorded.replay(leaves)

    def record(self, config: ModelConfig, instance: TorchInstance, shapes: Sequence[GraphShape]) -> None:
        """Run ``instance`` on zeros of each shape, and keep what it launches.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a network that cannot be recorded,
        :class:`~trivet.errors.ResourceExhaustedError` where its stream is another instance's too, and what the run
        itself raises.
        """
        outputs = [message.name for message in config.output]
        self._recording = True
        try:
            with STREAMS.alone(self._device.stream):
                # From the largest on: the smaller ones find their memory in the pool.
                for shape in reversed(shapes):
                    instance.execute(zeros(config, shape.batch_size, shape.dims), outputs)
        finally:
            self._recording = False

    def _record(self, leaves: Sequence[Any], structure: Any) -> _Recorded:
        held = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        arguments, keywords = torch.utils._pytree.tree_unflatten(held, structure)
        run = partial(self._call, *arguments, **keywords)
        for _ in range(_RUNS_BEFORE):
            run()
        for attempt in range(1, _ATTEMPTS + 1):
            graph = torch.cuda.CUDAGraph()
            try:
                results = self._capture(graph, run)
                break
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                reason = "it waits for the GPU, or does something on the host that depends on results"
                if _SPOILT in str(error):
                    if attempt < _ATTEMPTS:
                        continue
                    reason = f"other work in the server waited for the whole GPU meanwhile, {_ATTEMPTS} times"
                raise InvalidArgumentError(
                    f"failed to load model '{self._model}': its run cannot be recorded as a CUDA graph, which"
                    f" optimization.cuda.graphs asks for: {reason} ({describe(error)})"
                ) from error
        self._device.reused |= {
            leaf.untyped_storage().data_ptr()
            for leaf in torch.utils._pytree.tree_leaves(results)
            if isinstance(leaf, torch.Tensor)
        }
        return _Recorded(graph, held, results)

    def _capture(self, graph: Any, run: Callable[[], Any]) -> Any:
        """What ``run`` launches on the current stream becomes the graph; returns where that leaves its results.

        ``torch.cuda.graph`` would do it, but waits for the whole GPU first. That ends whatever another library of the
        process is recording there, and fails itself meanwhile.
        """
        with _one_at_a_time:
            self._device.stream.synchronize()
            torch.cuda.empty_cache()  # while it records PyTorch gives nothing back, wherever it needs more
            try:
                # "thread_local": other instances go on allocating memory meanwhile.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    results = run()
                except BaseException:
                    with suppress(RuntimeError):  # the first error is the one that says something
                        graph.capture_end()
                    raise
                graph.capture_end()
            except BaseException:
                self._forget_capture()
                raise
            return results

    def _forget_capture(self) -> None:
        """Before 2.12 PyTorch takes a recording that failed for one that goes on, and frees no memory ever after."""
        end = getattr(torch._C, "_cuda_endAllocateToPool", None)
        if end is not None:
            with suppress(RuntimeError):  # it has ended
                end(self._device.device.index, self._pool)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, and the memory that it reads its inputs from and leaves its results in."""

    graph: Any
    inputs: Sequence[Any]
    results: Any

    def replay(self, leaves: Sequence[Any]) -> Any:
        """Copy the inputs to where the graph reads, and launch it. All on the instance's stream, which keeps order."""
        for held, leaf in zip(self.inputs, leaves, strict=True):
            if isinstance(held, torch.Tensor):
                held.copy_(leaf, non_blocking=True)
        self.graph.replay()
        return self.results


def _kind(leaf: Any) -> Any:
    """What a recording depends on: shape and type of a tensor; any other value itself."""
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf
