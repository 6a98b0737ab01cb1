"""What this package offers to Trivet. Imports nothing of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import ExporterPlugin, hookimpl

from trivet_exporter_opentelemetry.options import OPTIONS


@hookimpl
def trivet_exporters() -> Sequence[ExporterPlugin]:
    """The one exporter of this package."""
    return (
        ExporterPlugin(
            name="opentelemetry",
            factory="trivet_exporter_opentelemetry.service:create",
            description="Traces, metrics and logs by OTLP over HTTP, where they are asked for",
            options=OPTIONS,
        ),
    )
