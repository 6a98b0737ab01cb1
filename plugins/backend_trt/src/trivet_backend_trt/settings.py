"""The settings of a model, read from ``parameters`` and ``optimization`` of its configuration and from the operator.

Source: README of Triton's tensorrt_backend ("Command-line Options", "Parameters") and ``model_config.proto``
(``ModelOptimizationPolicy``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trivet.backend import ModelContext
from trivet.config.model_config_pb2 import ModelOptimizationPolicy
from trivet.errors import InvalidArgumentError
from trivet.parameters import warn_of_similar

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

_TRUE, _FALSE = ("true", "on", "1"), ("false", "off", "0")


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
        options = context.backend_options
        values = {**{name: options[name] for name in _PARAMETERS if name in options}, **context.parameters}
        owner = f"model '{context.name}'"
        policy = options.get("execution-policy", "BLOCKING")
        if policy not in ("BLOCKING", "DEVICE_BLOCKING"):
            raise _bad("execution-policy", OPTION, policy, "BLOCKING or DEVICE_BLOCKING")
        strategy = values.get(STRATEGY, "STATIC")
        if strategy not in STRATEGIES:
            raise _bad(STRATEGY, owner, strategy, f"one of {', '.join(STRATEGIES)}")
        budget = values.get(BUDGET)
        if budget is not None and not _BUDGET.fullmatch(budget):
            raise _bad(BUDGET, owner, budget, "bytes ('2G', '500M', '1000'), a part ('25%') or 'auto'")
        most = options.get("default-max-batch-size", "0")
        if not re.fullmatch(r"[0-9]{1,9}", most):
            raise _bad("default-max-batch-size", OPTION, most, "an integer from 0")
        _boolean(options, "coalesce-request-input")
        optimization = context.config.optimization
        return cls(
            strategy=strategy,
            streaming_budget=budget,
            library=values.get(LIBRARY),
            plugins=tuple(path for path in options.get("plugins", "").split(";") if path),
            version_compatible=_boolean(options, "version-compatible"),
            default_max_batch_size=int(most),
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
    for name, value, reason in _WITHOUT_EFFECT:
        if context.backend_options.get(name) == value:
            logger.warning("%s,%s=%s has no effect: %s", OPTION, name, value, reason)
    if context.config.optimization.cuda.graph_spec and not context.config.optimization.cuda.graphs:
        logger.warning("model '%s' has graph_spec without graphs: true, which has no effect", context.name)


_WITHOUT_EFFECT = (
    ("coalesce-request-input", "true", "a batch is put together in one piece in any case"),
    ("execution-policy", "DEVICE_BLOCKING", "each instance has a thread of its own"),
)


def _bad(name: str, owner: str, value: str, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"parameter '{name}' of {owner} is '{value}', expected {expected}")


def _boolean(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "false")
    if value.lower() not in (*_TRUE, *_FALSE):
        raise _bad(name, OPTION, value, f"one of {', '.join((*_TRUE, *_FALSE))}")
    return value.lower() in _TRUE
