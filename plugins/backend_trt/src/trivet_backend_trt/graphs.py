"""For which shapes CUDA graphs are captured, and which of them an execution may use.

Source: ``model_config.proto``, ``ModelOptimizationPolicy.Cuda.GraphSpec``. Where a configuration asks for graphs and
names no shapes, they are captured for a batch of one, the preferred batch sizes and ``max_batch_size``, at the optimum
of the profile in other dimensions that vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError

from trivet_backend_trt.profiles import Profile, Sizes
from trivet_backend_trt.signature import Signature, TensorSignature

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GraphShapes:
    """What one graph is captured for."""

    shapes: Mapping[str, Sizes]
    """By input, with the batch dimension."""
    least_rows: int
    """It may serve smaller batches, down to this, whose other rows hold whatever they held."""


def graph_shapes(config: ModelConfig, signature: Signature, profile: Profile) -> list[GraphShapes]:
    """The graphs that a configuration asks for.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a specification that does not fit the plan.
    """
    batches = config.max_batch_size > 0
    specs = config.optimization.cuda.graph_spec
    if specs:
        return [_specified(config, signature, spec) for spec in specs]
    sizes = {1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size} if batches else {0}
    most = profile.max_batch_size()
    wanted = sorted(size for size in sizes if not batches or most is None or size <= most)
    return [
        GraphShapes({name: _optimum(tensor, profile, size) for name, tensor in signature.inputs.items()}, size)
        for size in wanted
    ]


def _optimum(tensor: TensorSignature, profile: Profile, rows: int) -> Sizes:
    bounds = profile.shapes.get(tensor.name)
    shape = bounds.optimum if bounds else tensor.dims
    return (rows, *shape[1:]) if rows else shape


def _specified(config: ModelConfig, signature: Signature, spec: Any) -> GraphShapes:
    batches = config.max_batch_size > 0
    where = f"graph_spec of model '{config.name}'"
    if batches != (spec.batch_size > 0) or spec.batch_size > config.max_batch_size:
        expected = f"1 to {config.max_batch_size}" if batches else "0 for a model without batch dimension"
        raise InvalidArgumentError(f"{where} has batch_size {spec.batch_size}, expected {expected}")
    for name in spec.input:
        if name not in signature.inputs:
            raise InvalidArgumentError(
                f"{where} names input '{name}', and the model's inputs are {', '.join(signature.inputs)}"
            )
    shapes = {}
    for name, tensor in signature.inputs.items():
        own = tensor.dims[1:] if batches else tensor.dims
        dims = tuple(spec.input[name].dim) if name in spec.input else own
        if len(dims) != len(own) or any(dim < 1 or have not in (-1, dim) for dim, have in zip(dims, own, strict=True)):
            raise InvalidArgumentError(
                f"{where} gives input '{name}' the shape {list(dims)}, expected sizes for {list(own)}"
            )
        shapes[name] = (spec.batch_size, *dims) if batches else dims
    return GraphShapes(shapes, _least_rows(spec, shapes, where))


def _least_rows(spec: Any, shapes: Mapping[str, Sizes], where: str) -> int:
    if not spec.HasField("graph_lower_bound"):
        return int(spec.batch_size)
    lower = spec.graph_lower_bound
    for name, shape in lower.input.items():
        if tuple(shape.dim) != shapes.get(name, ())[1:]:
            raise InvalidArgumentError(
                f"{where} has a graph_lower_bound of {list(shape.dim)} for input '{name}', which is not supported: only"
                " batch_size may be smaller, as other dimensions would move the elements"
            )
    if not 1 <= lower.batch_size <= spec.batch_size:
        raise InvalidArgumentError(
            f"{where} has a graph_lower_bound of batch_size {lower.batch_size}, expected 1 to {spec.batch_size}"
        )
    return int(lower.batch_size)


class GraphTable(Generic[T]):
    """Captured graphs by what they can serve."""

    def __init__(self, captured: Sequence[tuple[GraphShapes, T]] = ()) -> None:
        self._exact = {_key(shapes.shapes): graph for shapes, graph in captured}
        # The smallest that is large enough comes first.
        self._padding = sorted(
            ((shapes, graph) for shapes, graph in captured if shapes.least_rows < _rows(shapes.shapes)),
            key=lambda pair: _rows(pair[0].shapes),
        )

    def find(self, shapes: Mapping[str, Sizes]) -> T | None:
        """The graph for an execution with these input shapes; ``None`` where none was captured."""
        exact = self._exact.get(_key(shapes))
        if exact is not None or not self._padding:
            return exact
        rows = _rows(shapes)
        for captured, graph in self._padding:
            fits = captured.least_rows <= rows <= _rows(captured.shapes)
            if fits and all(shape[1:] == captured.shapes[name][1:] for name, shape in shapes.items()):
                return graph
        return None


def _key(shapes: Mapping[str, Sizes]) -> tuple[tuple[str, Sizes], ...]:
    return tuple(sorted(shapes.items()))


def _rows(shapes: Mapping[str, Sizes]) -> int:
    shape = next(iter(shapes.values()), ())
    return shape[0] if shape else 0
