"""The exporter: answers ``GET /metrics`` on the listener ``metrics``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from anyio import CapacityLimiter, to_thread
from trivet.http import HttpRequest, HttpResponse, Route
from trivet.machine import Gpus, Machine
from trivet.metrics import Reading
from trivet.server_metrics import LoopLag, read_cache, read_pools
from trivet.service import Exporter, ServerContext

from trivet_exporter_prometheus.exposition import render
from trivet_exporter_prometheus.families import Family
from trivet_exporter_prometheus.latencies import Latencies, Summaries
from trivet_exporter_prometheus.models import ModelFamilies, ModelLabels
from trivet_exporter_prometheus.options import MetricsSettings
from trivet_exporter_prometheus.readings import Apart, families


class PrometheusExporter(Exporter):
    """Reads what the engine counts anyway when somebody scrapes. It hears of single requests only where an option needs
    that, see ``latencies``.

    The numbers are read on the event loop, so that they belong together, and become text on a worker thread, one scrape
    at a time.
    """

    def __init__(self, context: ServerContext) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for an option that is wrong."""
        settings = MetricsSettings.of(context.settings)
        self._allowed: bool = context.settings["allow_metrics"]
        self._engine = context.engine
        self._memory = context.memory
        self._settings = settings
        self._labels = ModelLabels()
        self._models = ModelFamilies(counter_latencies=settings.counter_latencies)
        self._latencies = Latencies(settings)
        self._lag = LoopLag()
        self._machine = Machine(settings.interval_s) if settings.cpu else None
        self._gpus: Gpus | None = None
        self._rendering = CapacityLimiter(1)
        self._apart = Apart()
        if self._allowed:
            listener = context.listener("metrics")
            listener.routes += [Route("GET", "/metrics", self._scrape, "Metrics for Prometheus")]

    async def start(self) -> None:
        if not self._allowed:
            return
        if self._settings.gpu:
            self._gpus = await to_thread.run_sync(Gpus.find)
        if self._latencies.observes:
            self._engine.on_finished.append(self._latencies.observe)
        self._lag.start()

    async def stop(self, grace_s: float) -> None:
        self._lag.stop()
        if self._latencies.observe in self._engine.on_finished:
            self._engine.on_finished.remove(self._latencies.observe)
        if self._gpus is not None:
            gpus, self._gpus = self._gpus, None
            await to_thread.run_sync(gpus.close, limiter=self._rendering)

    async def _scrape(self, request: HttpRequest) -> HttpResponse:
        collected, readings, summaries = self._collect()
        accept = request.headers.get(b"accept", b"").decode("latin-1")
        text, content_type = await to_thread.run_sync(
            self._render, collected, readings, summaries, accept, limiter=self._rendering
        )
        return HttpResponse(200, (text,), ((b"content-type", content_type.encode()),))

    def _collect(self) -> tuple[list[Family], list[Reading], Summaries | None]:
        """What is read on the event loop."""
        models = self._labels.of(self._engine)
        collected = [*self._models.collect(models), *self._latencies.collect(models)]
        readings = [*read_cache(self._engine), *read_pools(self._memory.values()), self._lag.read()]
        return collected, readings, self._latencies.summaries(models)

    def _render(
        self, collected: list[Family], readings: list[Reading], summaries: Summaries | None, accept: str
    ) -> tuple[bytes, str]:
        """The rest, on a worker thread."""
        sources: list[Iterable[Family]] = [collected, families(readings)]
        if summaries is not None:
            sources.append(summaries.collect())
        if self._gpus is not None:
            sources.append(families(self._gpus.read()))
        if self._machine is not None:
            sources.append(families(self._machine.read()))
        models = families(self._engine.metrics.read())
        return render(self._apart(chain.from_iterable(sources), models), accept)
