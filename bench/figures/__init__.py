"""The figures: one module each, whose docstring says what it measures, with ``run(settings, report)``."""

FIGURES = (
    "http",
    "grpc",
    "perf_analyzer",
    "minilm",
    "backends",
    "large",
    "startup",
    "churn",
    "engine",
    "ensemble",
    "batching",
    "scheduler",
    "goodput",
    "sequences",
    "cache",
    "tracing",
    "request",
    "scheduling_minilm",
    "overload",
    "streaming",
    "bls",
    "metrics",
    "shared_memory",
)
"""In the order of docs/benchmarks.md."""
