"""The options that this package adds to ``trivet serve``, and what they say, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.errors import InvalidArgumentError
from trivet.options import Option, Settings

OPTIONS: tuple[Option, ...] = (
    Option("allow-metrics", "boolean", True, "Serve metrics for Prometheus on --metrics-port, at /metrics."),
    Option("allow-gpu-metrics", "boolean", True, "Metrics of GPUs, where there are any (needs nvidia-ml-py)."),
    Option("allow-cpu-metrics", "boolean", True, "Metrics of the CPU and the machine's memory."),
    Option("metrics-interval-ms", "number", 2000.0, "Milliseconds between two readings of CPU and GPUs."),
    Option(
        "metrics-config",
        "string",
        None,
        "NAME=VALUE of metrics: counter_latencies, histogram_latencies and summary_latencies (true or false),"
        " summary_quantiles (QUANTILE:ERROR,...). May be repeated.",
        multiple=True,
    ),
)

_BOOLEANS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}
_DEFAULT_QUANTILES: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Which metrics there are. Names and defaults are Triton's (``--metrics-config``)."""

    counter_latencies: bool = True
    """Durations as counters."""
    histogram_latencies: bool = False
    """The time to the first response of decoupled models as histogram."""
    summary_latencies: bool = False
    """Durations as summaries, with quantiles of the last minute."""
    quantiles: tuple[float, ...] = field(default=_DEFAULT_QUANTILES)
    gpu: bool = True
    cpu: bool = True
    interval_s: float = 2.0

    @classmethod
    def of(cls, settings: Settings) -> MetricsSettings:
        """Read the settings of :data:`OPTIONS`.

        Raises :class:`~trivet.errors.InvalidArgumentError` naming what is wrong.
        """
        interval_s = settings["metrics_interval_ms"] / 1000
        if not interval_s > 0:
            raise InvalidArgumentError(f"--metrics-interval-ms={settings['metrics_interval_ms']}: expected more than 0")
        flags: dict[str, bool] = {}
        quantiles = _DEFAULT_QUANTILES
        for text in settings["metrics_config"]:
            name, _, value = text.partition("=")
            if name == "summary_quantiles":
                quantiles = _quantiles(value)
            elif name not in ("counter_latencies", "histogram_latencies", "summary_latencies"):
                raise InvalidArgumentError(
                    f"--metrics-config={text}: expected NAME=VALUE, where NAME is counter_latencies,"
                    " histogram_latencies, summary_latencies or summary_quantiles"
                )
            elif value.lower() not in _BOOLEANS:
                raise InvalidArgumentError(f"--metrics-config={text}: expected '{name}=true' or '{name}=false'")
            else:
                flags[name] = _BOOLEANS[value.lower()]
        return cls(
            **flags,
            quantiles=quantiles,
            gpu=settings["allow_gpu_metrics"],
            cpu=settings["allow_cpu_metrics"],
            interval_s=interval_s,
        )


def _quantiles(text: str) -> tuple[float, ...]:
    """``0.5:0.05,0.9:0.01``: the errors that Triton's algorithm may make are not needed here."""
    found: list[float] = []
    for pair in text.split(","):
        quantile, _, error = pair.partition(":")
        try:
            number, _ = float(quantile), float(error or 0)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise InvalidArgumentError(
                f"--metrics-config=summary_quantiles={text}: expected QUANTILE:ERROR,... with numbers from 0 to 1, as"
                " in 0.5:0.05,0.99:0.001"
            )
        found.append(number)
    return tuple(found)
