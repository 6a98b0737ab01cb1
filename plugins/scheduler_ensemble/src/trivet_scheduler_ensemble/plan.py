"""What an ensemble does with a request, worked out once when it loads.

The graph was checked when it gets here: names exist, datatypes and shapes agree, every tensor is written once, and the
tensors that a step brings together come from the same decoupled step. That step is what a tensor's *source* is: each
of its responses begins a new *scope*, which holds one value of every tensor with that source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from trivet.inference import RequestedOutput
from trivet.tensor import Tensor

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.spec import ModelSpec
    from trivet.scheduling import ModelAccess, ServedModel

Fit = Callable[[Tensor], Tensor]
"""Puts a tensor into the shape that its reader expects, where one of the two has a batch dimension and one has not."""

MOST_SELECTIONS = 64
"""Selections of outputs that a plan remembers: there may be any number, and clients that ask for each."""


class Step:
    """One model of the graph."""

    __slots__ = ("decoupled", "index", "inputs", "model", "outputs", "reads", "restrained", "source")

    def __init__(self, index: int, model: ServedModel, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """``inputs`` and ``outputs`` go from the model's names to the ensemble's."""
        self.index = index
        self.model = model
        self.inputs: Sequence[tuple[str, str, Fit | None]] = [(name, tensor, None) for name, tensor in inputs.items()]
        self.outputs = outputs
        self.reads = tuple(dict.fromkeys(inputs.values()))
        """The ensemble's tensors that it needs, each once."""
        self.decoupled = model.spec.decoupled
        self.restrained = False
        """A decoupled model's thread may be held back until the steps behind have worked off what it gave: not where
        one of them runs on the same model, and perhaps needs that thread."""
        self.source: int | None = None
        """The decoupled step whose responses it runs for, ``None`` where it runs once for the request."""


class StepCalls:
    """A step as one selection of outputs needs it."""

    __slots__ = ("outputs", "step", "wanted")

    def __init__(self, step: Step, needed: frozenset[str]) -> None:
        """``needed`` are the ensemble's tensors that something reads."""
        self.step = step
        self.outputs = tuple((name, tensor) for name, tensor in step.outputs.items() if tensor in needed)
        """Names of the model's outputs that are needed, with the ensemble's."""
        names = {name for name, _ in self.outputs}
        self.wanted = (
            None
            if names == step.model.spec.outputs.keys()
            else [RequestedOutput(name) for name in step.model.spec.output_names if name in names]
        )
        """``outputs`` of the requests; ``None`` where that is all the model has."""


class Selection:
    """The part of the graph that a set of requested outputs needs."""

    __slots__ = ("decoupled", "depth", "first", "outputs", "readers", "shared", "uses", "waits", "wanted")

    def __init__(self, plan: Plan, outputs: Sequence[str]) -> None:
        self.outputs = [(name, plan.output_fits.get(name)) for name in outputs]
        """In the order of the response, each with what has to be done to its shape."""
        self.wanted = frozenset(outputs)
        steps = plan.steps_for(self.wanted)
        needed = self.wanted.union(*(step.reads for step in steps))
        calls = {step.index: StepCalls(step, needed) for step in steps}
        self.readers: dict[str, list[StepCalls]] = {tensor: [] for tensor in needed}
        """Who reads a tensor of the ensemble, by its name."""
        for step in steps:
            for tensor in step.reads:
                self.readers[tensor].append(calls[step.index])
        self.waits = [0] * len(plan.steps)
        """By step: how many tensors it needs beyond the ensemble's inputs."""
        for step in steps:
            self.waits[step.index] = sum(tensor not in plan.inputs for tensor in step.reads)
        self.first = [calls[step.index] for step in steps if not self.waits[step.index]]
        """The steps that need nothing but the ensemble's inputs."""
        self.uses = {tensor: len(readers) + (tensor in self.wanted) for tensor, readers in self.readers.items()}
        """How often a value of a tensor is read before it can go."""
        reads = Counter(tensor for step in steps for _, tensor, _ in step.inputs)
        self.shared = frozenset(tensor for tensor in needed if reads[tensor] + (tensor in self.wanted) > 1)
        """Those that a reader must not write into, as somebody else has them too."""
        self.depth = plan.depth(outputs[0]) if outputs else 0
        """How many decoupled steps are on the way to the outputs."""
        self.decoupled = self.depth > 0


class Plan:
    """The graph of one ensemble."""

    def __init__(self, config: ModelConfig, spec: ModelSpec, models: ModelAccess) -> None:
        """Finds the models of the steps. Raises :class:`~trivet.errors.TrivetError` where one is not ready."""
        self.inputs = frozenset(spec.inputs)
        self.steps = [
            Step(
                index,
                models.find(step.model_name, step.model_version),
                dict(sorted(step.input_map.items())),
                dict(sorted(step.output_map.items())),
            )
            for index, step in enumerate(config.ensemble_scheduling.step)
        ]
        self._writers = {tensor: step for step in self.steps for tensor in step.outputs.values()}
        for step in self._in_order():
            step.source = self._source(step.reads[0])
        for step in self.steps:
            behind = set().union(*(_models(other.model, models) for other in self._behind(step)))
            step.restrained = step.decoupled and behind.isdisjoint(_models(step.model, models))
        self.output_fits: dict[str, Fit] = {}
        self._fit_shapes(spec)
        self._selections: dict[tuple[str, ...], Selection] = {}
        self.everything = self.selection(spec.output_names)

    def selection(self, outputs: Sequence[str]) -> Selection:
        """What a request for these outputs needs."""
        key = tuple(outputs)
        found = self._selections.get(key)
        if found is None:
            found = Selection(self, key)
            if len(self._selections) < MOST_SELECTIONS:
                self._selections[key] = found
        return found

    def steps_for(self, outputs: frozenset[str]) -> list[Step]:
        """The steps without which these tensors are not written, in the configuration's order."""
        needed: set[int] = set()
        tensors = list(outputs)
        while tensors:
            step = self._writers.get(tensors.pop())
            if step is not None and step.index not in needed:
                needed.add(step.index)
                tensors += step.reads
        return [step for step in self.steps if step.index in needed]

    def depth(self, tensor: str) -> int:
        """How many decoupled steps are between the ensemble's inputs and a tensor."""
        source = self._source(tensor)
        return 0 if source is None else 1 + self.depth(self.steps[source].reads[0])

    def _source(self, tensor: str) -> int | None:
        step = self._writers.get(tensor)
        if step is None or tensor in self.inputs:
            return None
        return step.index if step.decoupled else step.source

    def _behind(self, step: Step) -> list[Step]:
        """The steps that need something of this one."""
        found: list[Step] = []
        tensors = set(step.outputs.values())
        for other in self._in_order():
            if not tensors.isdisjoint(other.reads):
                found.append(other)
                tensors.update(other.outputs.values())
        return found

    def _in_order(self) -> list[Step]:
        """Each step after those that write what it reads."""
        known = set(self.inputs)
        waiting = list(self.steps)
        ordered: list[Step] = []
        while ready := [step for step in waiting if known.issuperset(step.reads)]:
            ordered += ready
            known.update(*(step.outputs.values() for step in ready))
            waiting = [step for step in waiting if step not in ready]
        return ordered

    def _fit_shapes(self, spec: ModelSpec) -> None:
        """Models with and without batches may pass tensors to each other."""
        batches = dict.fromkeys(self.inputs, spec.max_batch_size > 0)
        for step in self.steps:
            batches.update(dict.fromkeys(step.outputs.values(), step.model.spec.max_batch_size > 0))
        for step in self.steps:
            own = step.model.spec
            step.inputs = [
                (name, tensor, _fit(own.inputs[name].dims, batches[tensor], own.max_batch_size > 0))
                for name, tensor, _ in step.inputs
            ]
        for name, declared in spec.outputs.items():
            dims = declared.dims if declared.reshape is None else declared.reshape
            fit = _fit(dims, batches[name], spec.max_batch_size > 0)
            if fit is not None:
                self.output_fits[name] = fit


def _models(model: ServedModel, models: ModelAccess) -> set[str]:
    """The names of a model and, where it is an ensemble, of all that it is made of."""
    steps = model.config.ensemble_scheduling.step
    return {model.name}.union(*(_models(models.find(step.model_name, step.model_version), models) for step in steps))


def _fit(dims: tuple[int, ...], has_batch: bool, wants_batch: bool) -> Fit | None:
    """How a tensor becomes one that its reader takes, whose configuration says ``dims``.

    Source: Triton's ensemble scheduler: a batch of one is added, or taken away, where the shape asks for it.
    """
    if has_batch == wants_batch:
        return None

    def add_batch(tensor: Tensor) -> Tensor:
        return tensor.reshaped((1, *tensor.shape)) if _matches(dims, tensor.shape) else tensor

    def drop_batch(tensor: Tensor) -> Tensor:
        if not _matches(dims, tensor.shape) and tensor.shape[:1] == (1,):
            return tensor.reshaped(tensor.shape[1:])
        return tensor

    return add_batch if wants_batch else drop_batch


def _matches(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(dims) == len(shape) and all(want in (-1, have) for want, have in zip(dims, shape, strict=True))
