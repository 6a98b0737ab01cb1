"""What the plugin names: the exporter, or nothing of it."""

from __future__ import annotations

from trivet.service import Exporter, ServerContext

from trivet_exporter_opentelemetry.options import ExportSettings


def create(context: ServerContext) -> Exporter:
    """The exporter of what the settings ask for.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is wrong.
    """
    settings = ExportSettings.of(context.settings, context.engine.tracing.options)
    if settings.traces is None and settings.metrics is None and settings.logs is None:
        return Off()
    # Only now, so that a server that sends nothing does not import what sends.
    from trivet_exporter_opentelemetry.exporter import OpenTelemetryExporter  # noqa: PLC0415

    return OpenTelemetryExporter(context.engine, context.memory.values(), settings)


class Off(Exporter):
    """Stands for the exporter where nothing is to be sent."""

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self, grace_s: float) -> None:
        """Nothing to do."""
