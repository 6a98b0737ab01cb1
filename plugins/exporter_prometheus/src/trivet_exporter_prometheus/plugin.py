"""What this package offers to Trivet. Imports nothing of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import ExporterPlugin, hookimpl

from trivet_exporter_prometheus.options import OPTIONS


@hookimpl
def trivet_exporters() -> Sequence[ExporterPlugin]:
    """The one exporter of this package."""
    return (
        ExporterPlugin(
            name="prometheus",
            factory="trivet_exporter_prometheus.exporter:PrometheusExporter",
            description="Metrics for Prometheus on the listener 'metrics', as Triton names them",
            options=OPTIONS,
            config_fields=("metric_tags", "model_metrics"),
        ),
    )
