"""The settings of a model, read from ``parameters`` and ``optimization`` of its configuration and from the operator.

Source: README of Triton's tensorrt_backend ("Command-line Options", "Parameters") and ``model_config.proto``
(``ModelOptimizationPolicy``).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from trivet.backend import ModelContext
from trivet.config.model_config_pb2 import ModelOptimizationPolicy
from trivet.parameters import Parameters, warn_of_similar

OPTION = "--backend-config=tensorrt"

STRATEGY = "execution_context_allocation_strategy"
STRATEGIES = ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")
BUDGET = "weight_streaming_budget"
LIBRARY = "library"
_PARAMETERS = (STRATEGY, BUDGET, LIBRARY)
_BACKEND_OPTIONS = (
    *_PARAMETERS,
    "plugins",
    "version-compatible",
    "coalesce-request-input",
    "execution-policy",
    "default-max-batch-size",
)

_POLICIES = ("BLOCKING", "DEVICE_BLOCKING")
_NO_EFFECT = f"{OPTION},%s has no effect: %s"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to load and run one model's plan."""

    strategy: str = "STATIC"
    """A name of ``tensorrt.ExecutionContextAllocationStrategy``."""
    streaming_budget: str | None = None
    """See :func:`budget_bytes`; ``None`` leaves all weights on the GPU."""
    library: str | None = None
    """The module that loads the plan; ``None``: what its head says."""
    plugins: tuple[str, ...] = ()
    """Libraries with plugins. From the operator alone: they are code."""
    version_compatible: bool = False
    """Whether to run the code that version-compatible plans bring. From the operator alone."""
    default_max_batch_size: int = 0
    """What auto-completion gives a plan that can batch; 0: as much as its profiles take."""
    graphs: bool = False
    busy_wait: bool = False
    priority: int = 0
    """Of the streams: -1 is first, 1 is last, 0 is neither."""

    @classmethod
    def read(cls, context: ModelContext) -> Settings:
        """Read and check them. Raises :class:`~trivet.errors.InvalidArgumentError` naming parameter and value."""
        model, operator = Parameters.of_model(context), Parameters.of_backend(context, "tensorrt")
        operator.choice("execution-policy", dict.fromkeys(_POLICIES), default=None)
        operator.boolean("coalesce-request-input")
        budget = model.text(BUDGET)
        if budget is not None and not _BUDGET.fullmatch(budget):
            raise model.bad(BUDGET, "bytes ('2G', '500M', '1000'), a part ('25%') or 'auto'")
        optimization = context.config.optimization
        return cls(
            strategy=model.choice(STRATEGY, {name: name for name in STRATEGIES}, default="STATIC"),
            streaming_budget=budget,
            library=model.text(LIBRARY),
            plugins=tuple(path for path in (operator.text("plugins") or "").split(";") if path),
            version_compatible=bool(operator.boolean("version-compatible")),
            default_max_batch_size=operator.integer("default-max-batch-size", 0),
            graphs=optimization.cuda.graphs,
            busy_wait=optimization.cuda.busy_wait_events,
            priority=_PRIORITIES[optimization.priority],
        )


_PRIORITIES = {
    ModelOptimizationPolicy.PRIORITY_DEFAULT: 0,
    ModelOptimizationPolicy.PRIORITY_MAX: -1,
    ModelOptimizationPolicy.PRIORITY_MIN: 1,
}

_BUDGET = re.compile(r"auto|([0-9]{1,3}(?:\.[0-9]{1,6})?)%|([0-9]{1,18})([KMG]?)")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def budget_bytes(text: str, streamable: int, automatic: int) -> int:
    """How many bytes of ``streamable`` weights stay on the GPU, of a checked ``weight_streaming_budget``.

    As ``trtexec --weightStreamingBudget`` has it: a percentage is of the weights that can be streamed, ``automatic``
    what TensorRT would choose.
    """
    match = _BUDGET.fullmatch(text)
    assert match is not None, "read() has checked it"
    percent, number, unit = match.groups()
    if percent is not None:
        return min(int(streamable * float(percent) / 100), streamable)
    return automatic if number is None else min(int(number) << _UNITS[unit], streamable)


def warn_of_unused(context: ModelContext, logger: logging.Logger) -> None:
    """Name what is set and has no effect."""
    warn_of_similar(f"model '{context.name}'", context.parameters, _PARAMETERS, logger)
    warn_of_similar(OPTION, context.backend_options, _BACKEND_OPTIONS, logger)
    operator = Parameters.of_backend(context, "tensorrt")
    if operator.boolean("coalesce-request-input"):
        logger.warning(_NO_EFFECT, "coalesce-request-input=true", "a batch is put together in one piece in any case")
    if operator.text("execution-policy") == "DEVICE_BLOCKING":
        logger.warning(_NO_EFFECT, "execution-policy=DEVICE_BLOCKING", "each instance has a thread of its own")
    if context.config.optimization.cuda.graph_spec and not context.config.optimization.cuda.graphs:
        logger.warning("model '%s' has graph_spec without graphs: true, which has no effect", context.name)
