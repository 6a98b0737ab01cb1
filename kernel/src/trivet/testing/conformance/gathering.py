"""A scheduler that makes batches of several requests for certain, whatever the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from trivet import hookimpl
from trivet.hookspecs import SchedulerPlugin
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.scheduling import Batch, Scheduler, SchedulerContext


class GatheringScheduler(Scheduler):
    """Waits for :attr:`size` requests and makes a batch of them: what a dynamic batcher does under load."""

    size: ClassVar[int] = 4

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self._waiting: list[InferenceRequest] = []

    def enqueue(self, request: InferenceRequest) -> None:
        self._waiting.append(request)
        if len(self._waiting) >= self.size:
            batch, self._waiting = self._waiting, []
            self.context.submit_any(Batch(batch))

    @property
    def queued(self) -> int:
        return len(self._waiting)


class _GatheringPlugin:
    @hookimpl
    def trivet_schedulers(self) -> Sequence[SchedulerPlugin]:
        return [SchedulerPlugin(name="dynamic_batching", factory=GatheringScheduler)]


def with_gathering() -> PluginRegistry:
    """What is installed, with the kit's scheduler in place of any other for ``dynamic_batching``."""
    own = PluginRegistry.of(conformance=_GatheringPlugin()).plugins
    others = [
        replace(plugin, offers=[(family, offer) for family, offer in plugin.offers if offer.name != "dynamic_batching"])
        for plugin in PluginRegistry.discover().plugins
    ]
    return PluginRegistry([*others, *own])
