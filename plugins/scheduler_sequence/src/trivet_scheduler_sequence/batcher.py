"""What both strategies have in common: the batches of one instance, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from trivet.inference import InferenceRequest
from trivet.tensor import Tensor

from trivet_scheduler_sequence.sequence import Sequence, Slot, Steps
from trivet_scheduler_sequence.states import zeros

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from trivet.config.spec import ModelSpec
    from trivet.scheduling import SchedulableInstance, SchedulerContext

    from trivet_scheduler_sequence.compatibility import Compatibility
    from trivet_scheduler_sequence.controls import Controls
    from trivet_scheduler_sequence.states import States


class Batcher(ABC):
    """Makes batches for one instance of the sequences that hold its slots, one batch at a time.

    A sequence's steps follow one another, so an instance has nothing to gain from a second batch in its queue but the
    sequences that are not in the first.
    """

    def __init__(
        self,
        context: SchedulerContext,
        instance: SchedulableInstance,
        place: int,
        controls: Controls,
        states: States,
        compatibility: Compatibility,
        *,
        slots: int,
    ) -> None:
        """``place`` is the instance's among those of the model."""
        self.instance = instance
        self.slots = [Slot(self, number, place) for number in range(slots)]
        self.busy = False
        """The instance executes a batch."""
        self.taken = 0
        """Steps that were handed to the instance."""
        self.draining = False
        """Nothing else will come that would be worth waiting for."""
        self._context = context
        self._spec: ModelSpec = context.spec
        self._controls = controls
        self._states = states
        self._compatibility = compatibility
        self._timer: Any = None

    @abstractmethod
    def offer(self, sequence: Sequence) -> None:
        """A sequence that holds a slot here has a request that waits, and no step that runs."""

    @abstractmethod
    def withdraw(self, sequence: Sequence) -> None:
        """A sequence that holds a slot here has none any more."""

    @abstractmethod
    def dispatch(self) -> None:
        """Hand the instance a batch, if it is free and there is one worth executing now."""

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, nanoseconds: int) -> None:
        """Look again after that time, at the latest."""
        self.close()
        self._timer = self._context.call_later(nanoseconds / 1e9, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self.dispatch()

    def _key(self, sequence: Sequence) -> Hashable:
        """Equal for sequences whose next steps can share a batch."""
        request = sequence.waiting[0]
        return self._compatibility.key(request, self._states_for(request, sequence))

    def _states_for(self, request: InferenceRequest, sequence: Sequence) -> Mapping[str, Tensor]:
        return self._states.initial if request.sequence_start else sequence.states

    def _take(self, sequence: Sequence) -> InferenceRequest:
        """The sequence's next request, with its controls and states among its inputs."""
        request = sequence.waiting.popleft()
        request.on_cancel = None
        sequence.running = request
        self.taken += 1
        sequence.states = self._states_for(request, sequence)
        controls = self._controls.step(request.sequence_start, request.sequence_end)
        request.inputs = {**request.inputs, **controls, **sequence.correlation, **sequence.states}
        return request

    def _null(self, like: InferenceRequest) -> InferenceRequest:
        """A request that nobody made: it fills a row, which the model is told to pass over (READY is false).

        It has the shapes of ``like``, a step of the same batch, so that it can be batched with it.
        """
        inputs: dict[str, Tensor] = {}
        for name, tensor in like.inputs.items():
            spec = self._spec.inputs.get(name)
            if spec is None and name not in self._states.initial:
                continue
            if spec is not None and spec.is_shape_tensor:
                inputs[name] = tensor
            else:
                inputs[name] = _blank(tensor)
        null = InferenceRequest(like.model_name, {**inputs, **self._controls.not_ready}, outputs=())
        null.model = like.model
        null.queued_ns = null.received_ns
        return null

    def _submit(self, requests: list[InferenceRequest], sequences: list[Sequence | None]) -> None:
        self.close()
        self.busy = True
        # Whole, since a row is a slot, and a step that began changes the sequence's state whether or not anybody waits.
        batch = Steps(requests, extra_outputs=self._states.outputs or None, whole=True)
        batch.sequences = sequences
        self.instance.submit(batch)


def _blank(tensor: Tensor) -> Tensor:
    return zeros(tensor.name, tensor.datatype, tensor.shape)
