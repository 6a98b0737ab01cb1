"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import SchedulerPlugin, hookimpl


@hookimpl
def trivet_schedulers() -> Sequence[SchedulerPlugin]:
    """The one scheduler of this package."""
    return (
        SchedulerPlugin(
            name="ensemble_scheduling",
            factory="trivet_scheduler_ensemble.scheduler:EnsembleScheduler",
            description="pipelines of models: each step runs when its inputs are there, branches side by side",
        ),
    )
