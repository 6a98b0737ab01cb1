"""One request on its way through an ensemble. Everything here happens on the event loop, in callbacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError, TrivetError, with_context
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.reshaping import reshape_inputs, reshape_outputs

from trivet_scheduler_ensemble.limit import Backpressure

if TYPE_CHECKING:
    from trivet.inference import ParameterValue
    from trivet.tensor import Tensor

    from trivet_scheduler_ensemble.plan import Selection, StepCalls
    from trivet_scheduler_ensemble.scheduler import EnsembleScheduler

Sequenced = tuple[int | str, bool, bool]
"""Correlation id, start and end of a sequence."""


class Scope:
    """One value of each tensor that has the same source: those of the request, or of one decoupled response."""

    __slots__ = ("answer", "backpressure", "children", "exhausted", "open", "outputs_missing", "parent", "sequenced",
                 "tensors", "uses", "waits")  # fmt: skip

    def __init__(self, selection: Selection, parent: Scope | None, tensors: dict[str, Tensor | None]) -> None:
        self.parent = parent
        self.tensors = tensors
        self.waits = selection.waits.copy()
        self.uses = selection.uses.copy()
        self.outputs_missing = len(selection.wanted)
        self.open = 0
        """Calls, and scopes below, that are not done."""
        self.sequenced: dict[str, Sequenced] | None = None
        """The sequence that a model's response named, by tensor."""
        self.answer: InferenceResponse | None = None
        """A response of the ensemble whose turn has not come."""
        self.children: deque[Scope] | None = None
        """What the decoupled step of this scope answered, in order."""
        self.exhausted = False
        """That step gives no more."""
        self.backpressure: Backpressure | None = None


class Call:
    """A request to the model of a step. It is the ``context`` of that request."""

    __slots__ = ("calls", "request", "run", "scope", "sequenced")

    def __init__(self, run: Run, calls: StepCalls, scope: Scope, sequenced: Sequenced) -> None:
        self.run = run
        self.calls = calls
        self.scope = scope
        self.sequenced = sequenced
        self.request: InferenceRequest

    def submit(self) -> None:
        """Hand the request to the model; a refusal is an answer like any other."""
        try:
            self.run.models.submit(self.calls.step.model, self.request)
        except TrivetError as error:
            self.run.answered(self, InferenceResponse(error=error))


class Run:
    """A request of the ensemble, from its first step to its final response."""

    __slots__ = ("_busy", "_calls", "_ended", "_ensemble", "_infer_ns", "_input_ns", "_output_ns", "_request",
                 "_responded", "_root", "_selection", "models")  # fmt: skip

    def __init__(self, ensemble: EnsembleScheduler, selection: Selection, request: InferenceRequest) -> None:
        self._ensemble = ensemble
        self.models = ensemble.models
        self._selection = selection
        self._request = request
        inputs = reshape_inputs(ensemble.spec, request.inputs)
        self._root = Scope(selection, None, dict(inputs))
        self._calls: set[Call] = set()
        self._busy = 0
        self._ended = False
        self._responded = False
        self._input_ns = self._infer_ns = self._output_ns = 0

    def start(self) -> None:
        """Run the steps that need nothing but the request."""
        request, root = self._request, self._root
        request.compute_start_ns = self._ensemble.clock_ns()
        request.on_cancel = self._cancelled
        self._busy = 1
        for calls in self._selection.first:
            self._launch(calls, root)
        for name in self._selection.wanted:
            if name in self._ensemble.plan.inputs:
                self._complete_output(root)
        self._busy = 0
        self._settle()

    # --- steps

    def _launch(self, calls: StepCalls, scope: Scope) -> None:
        if self._ended:
            return
        own, step, tensors, uses = self._request, calls.step, scope.tensors, scope.uses
        inputs: dict[str, Tensor] = {}
        for name, source, fit in step.inputs:
            tensor = tensors.get(source)
            if tensor is not None:
                if source in self._selection.shared:
                    tensor = tensor.read_only()
                inputs[name] = (tensor if fit is None else fit(tensor)).renamed(name)
        sequenced = self._sequenced(scope, step.reads)
        for source in step.reads:
            left = uses[source] = uses[source] - 1
            if not left:
                tensors.pop(source, None)
        call = Call(self, calls, scope, sequenced)
        call.request = request = InferenceRequest(
            step.model.name,
            inputs,
            id=own.id,
            outputs=calls.wanted,
            parameters=own.parameters,
            on_response=_answered,
            context=call,
            priority=own.priority,
            timeout_us=own.timeout_us,
            correlation_id=sequenced[0],
            sequence_start=sequenced[1],
            sequence_end=sequenced[2],
        )
        request.trace_context = own.trace_context
        request.parent = own
        if step.decoupled:
            # The caller's throttle counts its own responses, of which there is one for each of the outermost producer
            # and, with only one, no others.
            outer = own.throttle if self._selection.depth == 1 else None
            if self._ensemble.limits is not None and step.restrained:
                scope.backpressure = Backpressure(self._ensemble.limits[step.index].most, outer)
                request.throttle = scope.backpressure
            else:
                request.throttle = outer
        scope.open += 1
        self._calls.add(call)
        limits = self._ensemble.limits
        if limits is None or limits[step.index].enter(call):
            call.submit()

    def _sequenced(self, scope: Scope, tensors: tuple[str, ...]) -> Sequenced:
        if scope.sequenced is not None:
            for tensor in tensors:
                if tensor in scope.sequenced:
                    return scope.sequenced[tensor]
        own = self._request
        return own.correlation_id, own.sequence_start, own.sequence_end

    # --- responses

    def answered(self, call: Call, response: InferenceResponse) -> None:
        """A model gave a response."""
        if response.final and call in self._calls:
            self._calls.discard(call)
            self._leave(call)
        if self._ended:
            return
        if response.error is not None:
            self._fail(response.error)
            return
        self._busy += 1
        try:
            self._use(call, response)
        except TrivetError as error:
            # An output whose shape is not what the ensemble's configuration makes of it.
            self._busy -= 1
            self._fail(error)
            return
        self._busy -= 1
        self._settle()

    def _use(self, call: Call, response: InferenceResponse) -> None:
        """Hand on what a model has answered."""
        scope, step = call.scope, call.calls.step
        if response.final:
            self._add_times(call.request)
        if not step.decoupled:
            self._deliver(call, scope, response)
        else:
            if response.outputs or not response.final:
                child = Scope(self._selection, scope, {})
                if scope.children is None:
                    scope.children = deque()
                scope.children.append(child)
                scope.open += 1
                child.open += 1
                self._deliver(call, child, response)
                self._close(child)
            elif scope.backpressure is not None:
                scope.backpressure.done()
            scope.exhausted = response.final
        if response.final:
            self._close(scope)

    def _deliver(self, call: Call, scope: Scope, response: InferenceResponse) -> None:
        """Put a response's tensors where steps and the ensemble's response find them, and run what waited for them."""
        selection, waits = self._selection, scope.waits
        given = {tensor.name: tensor for tensor in response.outputs}
        sequenced = _named_sequence(response.parameters, call.sequenced)
        ready: list[StepCalls] = []
        for output, name in call.calls.outputs:
            # An output that the model left out is an optional input that the next one does not get.
            scope.tensors[name] = given.get(output)
            if sequenced is not None:
                scope.sequenced = {**(scope.sequenced or {}), name: sequenced}
            for calls in selection.readers[name]:
                index = calls.step.index
                waits[index] -= 1
                if not waits[index]:
                    ready.append(calls)
            if name in selection.wanted:
                self._complete_output(scope)
        for calls in ready:
            self._launch(calls, scope)

    def _complete_output(self, scope: Scope) -> None:
        """One more of the requested outputs is there; with the last of them there is a response."""
        scope.outputs_missing -= 1
        if scope.outputs_missing:
            return
        outputs: list[Tensor] = []
        named: tuple[str, ...] = ()
        for name, fit in self._selection.outputs:
            tensor = scope.tensors.get(name)
            named = (name,)
            if tensor is not None:
                outputs.append((tensor if fit is None else fit(tensor)).renamed(name))
        sequence, start, end = self._sequenced(scope, named)
        scope.answer = InferenceResponse(
            reshape_outputs(self._ensemble.spec, outputs),
            parameters={"sequence_id": sequence, "sequence_start": start, "sequence_end": end},
            final=False,
        )

    def _close(self, scope: Scope) -> None:
        """A call of a scope, or a scope below, is done."""
        scope.open -= 1
        if not scope.open and scope.parent is not None:
            self._close(scope.parent)

    def _settle(self) -> None:
        """Give the responses whose turn has come, and the final one when no step is under way."""
        if self._busy or self._ended:
            return
        responses: list[InferenceResponse] = []
        self._collect(self._root, self._selection.depth, responses)
        finished = not self._root.open
        last = responses.pop() if finished and responses else None
        for response in responses:
            self._give(response)
        if finished:
            self._finish(last)

    def _give(self, response: InferenceResponse) -> None:
        # Whoever hears of a response may cancel the request in answer to it.
        if not self._ended:
            self._responded = True
            self._ensemble.respond(self._request, response)

    def _collect(self, scope: Scope, depth: int, responses: list[InferenceResponse]) -> bool:
        """Take the answers in the order of the decoupled responses behind them; whether no more can come of a scope."""
        if not depth:
            if scope.answer is None:
                return not scope.open
            responses.append(scope.answer)
            scope.answer = None
            return True
        children = scope.children
        while children:
            if not self._collect(children[0], depth - 1, responses):
                return False
            children.popleft()
            if scope.backpressure is not None:
                scope.backpressure.done()
        return scope.exhausted

    # --- the end

    def _finish(self, response: InferenceResponse | None) -> None:
        if self._ended:
            return
        request = self._request
        if response is None:
            if not self._responded and not self._selection.decoupled:
                self._fail(
                    InvalidArgumentError(
                        f"[request id: {request.id or '<id_unknown>'}] unexpected deadlock, at least one output is not"
                        " set while no more ensemble steps can be made"
                    )
                )
                return
            response = InferenceResponse()
        self._end()
        response.final = True
        request.input_end_ns = request.compute_start_ns + self._input_ns
        request.infer_end_ns = request.input_end_ns + self._infer_ns
        request.compute_end_ns = request.infer_end_ns + self._output_ns
        self._ensemble.respond(request, response)

    def _fail(self, error: TrivetError) -> None:
        """Answer with the error of a step, and let go of what the others are doing."""
        if self._ended:
            return
        self._abandon()
        self._ensemble.respond(
            self._request, InferenceResponse(error=with_context(error, f"in ensemble '{self._ensemble.name}', "))
        )

    def _cancelled(self, _: InferenceRequest) -> None:
        """``on_cancel`` of the request; the engine answers it."""
        self._abandon()

    def _abandon(self) -> None:
        self._end()
        limits = self._ensemble.limits
        for call in list(self._calls):
            if limits is not None:
                limit = limits[call.calls.step.index]
                if call in limit.waiting:
                    limit.waiting.remove(call)
                    self._calls.discard(call)
                    continue
            self.models.cancel(call.request)

    def _end(self) -> None:
        self._ended = True
        self._request.on_cancel = None
        if self._ensemble.limits is not None:
            _open(self._root)

    def _leave(self, call: Call) -> None:
        """A call has its final response: another one of the step may be made."""
        limits = self._ensemble.limits
        if limits is not None:
            limits[call.calls.step.index].leave()

    def _add_times(self, request: InferenceRequest) -> None:
        """The parts of a step's time, which add up to the ensemble's, as in Triton."""
        if request.compute_start_ns and request.compute_end_ns:
            self._input_ns += request.input_end_ns - request.compute_start_ns
            self._infer_ns += request.infer_end_ns - request.input_end_ns
            self._output_ns += request.compute_end_ns - request.infer_end_ns


def _answered(request: InferenceRequest, response: InferenceResponse) -> None:
    """``on_response`` of the requests to models."""
    call: Call = request.context
    call.run.answered(call, response)


def _named_sequence(parameters: Mapping[str, ParameterValue], of_request: Sequenced) -> Sequenced | None:
    """The sequence that a response says the next steps belong to; ``None`` where it is the request's."""
    if not parameters or parameters.keys().isdisjoint(("sequence_id", "sequence_start", "sequence_end")):
        return None if not any(of_request) else of_request
    correlation_id = parameters.get("sequence_id", of_request[0])
    if isinstance(correlation_id, bool) or not isinstance(correlation_id, (int, str)):
        correlation_id = of_request[0]
    return correlation_id, parameters.get("sequence_start") is True, parameters.get("sequence_end") is True


def _open(scope: Scope) -> None:
    if scope.backpressure is not None:
        scope.backpressure.open()
    for child in scope.children or ():
        _open(child)
