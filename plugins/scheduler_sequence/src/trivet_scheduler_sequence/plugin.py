"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import SchedulerPlugin, hookimpl


@hookimpl
def trivet_schedulers() -> Sequence[SchedulerPlugin]:
    """The one scheduler of this package."""
    return (
        SchedulerPlugin(
            name="sequence_batching",
            factory="trivet_scheduler_sequence.scheduler:SequenceScheduler",
            description="sequences of requests: direct and oldest strategy, controls, implicit state, iterative",
            extensions=("sequence",),
            dedicated_queues=True,
        ),
    )
