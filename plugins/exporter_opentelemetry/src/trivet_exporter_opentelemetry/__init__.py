"""Traces, metrics and logs of Trivet for OpenTelemetry, by OTLP."""
