"""What connects the adaptive policy with a batcher: measurements in, the rule changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError

from trivet_scheduler_dynamic.adaptive import ArrivalRate, ComputeTimes, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trivet.config import ModelConfig
    from trivet.inference import InferenceRequest

    from trivet_scheduler_dynamic.rule import BatchRule

DELAY = "dynamic_batching.max_queue_delay"
OBJECTIVE = "dynamic_batching.latency_objective_ms"
_STEP_NS = 20_000_000


class Adaptation:
    """Keeps a :class:`BatchRule` at what is best for an objective."""

    def __init__(self, rule: BatchRule, *, objective_ns: int, instances: int) -> None:
        self.objective_ns = objective_ns
        self._rule = rule
        self._max_rows = rule.limit
        self._instances = instances
        self._times = ComputeTimes()
        self._known: set[int] = set()
        self.rate = ArrivalRate()
        self._chosen_ns = 0
        rule.change(1, 0)

    def longest_wait_ns(self, rows: int) -> int:
        """How long a request may have waited that goes into the next batch, of so many rows at most, and is answered
        within the objective.
        """
        compute_ns = self._times.slow(min(rows, self._rule.limit)) if self._known else 0
        return self.objective_ns - int(compute_ns)

    def executed(self, requests: Sequence[InferenceRequest], now_ns: int) -> bool:
        """A batch is done, and its instance is free. True where the rule has changed."""
        self._rule.since_ns = now_ns
        served = [request for request in requests if request.compute_end_ns and not request.cancelled]
        if not served:
            return False
        rows = sum(request.batch_size for request in served)
        self._times.add(rows, max(1, served[0].compute_end_ns - served[0].compute_start_ns), now_ns)
        if rows in self._known and now_ns - self._chosen_ns < _STEP_NS:
            return False
        self._chosen_ns = now_ns
        self.rate.update(now_ns)
        self._times.forget(now_ns)
        self._known = set(self._times.sizes)
        choice = choose(
            self._times,
            self.rate.per_ns,
            instances=self._instances,
            objective_ns=self.objective_ns,
            max_rows=self._max_rows,
        )
        return self._rule.change(choice.limit, choice.delay_ns)


def objective_of(config: ModelConfig) -> int:
    """The latency objective of a model with ``max_queue_delay: auto`` in ns; 0 for a model without it.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the parameters do not say what is wanted.
    """
    values = {key: config.parameters[key].string_value for key in (DELAY, OBJECTIVE) if key in config.parameters}
    if not values:
        return 0
    if values.get(DELAY) != "auto":
        raise InvalidArgumentError(
            f"model '{config.name}': parameter '{DELAY}' is '{values.get(DELAY, '')}', expected 'auto'; a fixed delay"
            " is 'max_queue_delay_microseconds' of 'dynamic_batching'"
        )
    if config.dynamic_batching.max_queue_delay_microseconds:
        raise InvalidArgumentError(
            f"model '{config.name}' has both 'max_queue_delay_microseconds' and parameter '{DELAY}'; leave out one"
        )
    try:
        objective_ms = float(values.get(OBJECTIVE, ""))
    except ValueError:
        objective_ms = 0
    if not 0 < objective_ms < float("inf"):
        raise InvalidArgumentError(
            f"model '{config.name}': parameter '{OBJECTIVE}' is '{values.get(OBJECTIVE, '')}', expected the p99 latency"
            f" that is wanted, in milliseconds, as '{DELAY}' is 'auto'"
        )
    return int(objective_ms * 1_000_000)
