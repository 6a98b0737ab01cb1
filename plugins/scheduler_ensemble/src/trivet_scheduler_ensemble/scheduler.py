"""The scheduler of an ensemble: it has no instances, and hands each request on to the models of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trivet.scheduling import Scheduler, SchedulerContext

from trivet_scheduler_ensemble.limit import StepLimit
from trivet_scheduler_ensemble.plan import Plan
from trivet_scheduler_ensemble.run import Run

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest


class EnsembleScheduler(Scheduler):
    """Runs the steps of one ensemble. On the event loop."""

    def __init__(self, context: SchedulerContext) -> None:
        """Raises :class:`~trivet.errors.TrivetError` where a model of a step is not ready."""
        super().__init__(context)
        if context.models is None or context.respond is None:
            raise ValueError("an ensemble needs an engine: models and respond of its SchedulerContext")
        self.name = context.spec.name
        self.spec = context.spec
        self.clock_ns = context.clock_ns
        self.models = context.models
        self.respond = context.respond
        self.plan = Plan(context.config, context.spec, context.models)
        most = context.config.ensemble_scheduling.max_inflight_requests
        self.limits = [StepLimit(most) for _ in self.plan.steps] if most else None

    def enqueue(self, request: InferenceRequest) -> None:
        outputs = request.outputs
        if outputs is None:
            selection = self.plan.everything
        else:
            selection = self.plan.selection([output.name for output in outputs])
        Run(self, selection, request).start()

    @property
    def queued(self) -> int:
        """Steps that wait for ``max_inflight_requests``; what waits for a model is in that model's queue."""
        return sum(len(limit.waiting) for limit in self.limits) if self.limits else 0
