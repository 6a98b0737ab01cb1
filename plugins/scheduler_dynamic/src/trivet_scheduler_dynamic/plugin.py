"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import SchedulerPlugin, hookimpl


@hookimpl
def trivet_schedulers() -> Sequence[SchedulerPlugin]:
    """The one scheduler of this package."""
    return (
        SchedulerPlugin(
            name="dynamic_batching",
            factory="trivet_scheduler_dynamic.batcher:DynamicBatcher",
            description="Dynamic batching with priorities and queue policies",
            config_fields=("optimization.eager_batching",),
            extensions=("schedule_policy",),
        ),
    )
