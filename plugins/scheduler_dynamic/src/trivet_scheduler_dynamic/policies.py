"""Priorities and queue policies: into which level a request goes, whether it is admitted, how long it may wait.

Source: Triton's model configuration, ``ModelDynamicBatching`` and ``ModelQueuePolicy``; the user guide, "Priority
Levels" and "Queue Policy".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trivet.errors import UnavailableError

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy
    from trivet.inference import InferenceRequest

_DELAY = 1  # ModelQueuePolicy.TimeoutAction.DELAY


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The rules of one priority level's queue."""

    delays: bool = False
    """A request whose timeout has passed goes behind the others of its level; otherwise it is rejected."""
    timeout_ns: int = 0
    """How long a request may wait; 0 for ever."""
    allow_override: bool = False
    """A request's own timeout counts where it is the shorter one."""
    max_size: int = 0
    """How many requests may wait; 0 for any number."""

    @classmethod
    def of(cls, policy: ModelQueuePolicy) -> QueuePolicy:
        """The policy of a configuration."""
        return cls(
            delays=policy.timeout_action == _DELAY,
            timeout_ns=policy.default_timeout_microseconds * 1000,
            allow_override=policy.allow_timeout_override,
            max_size=policy.max_queue_size,
        )

    def timeout_of(self, request: InferenceRequest) -> int:
        """How long this request may wait, in nanoseconds; 0 for ever.

        As in Triton, a request may only shorten the policy's timeout: where there is none, its own does not count.
        """
        own = request.timeout_us * 1000
        return own if self.allow_override and 0 < own < self.timeout_ns else self.timeout_ns


class Levels:
    """The priority levels of a model: 1 (the highest) to ``count``, or level 0 alone where the model has none."""

    def __init__(self, batching: ModelDynamicBatching) -> None:
        self.count: int = batching.priority_levels
        self._default_level: int = batching.default_priority_level if self.count else 0
        self._default = QueuePolicy.of(batching.default_queue_policy)
        # Without levels Triton looks at the default policy alone.
        own = batching.priority_queue_policy.items() if self.count else ()
        self._policies = {level: QueuePolicy.of(policy) for level, policy in own}

    @property
    def only_policy(self) -> QueuePolicy | None:
        """The policy of every request, where there is but one level; ``None`` otherwise."""
        return self.policy(self.count) if self.count <= 1 else None

    def level_of(self, request: InferenceRequest) -> int:
        """The request's level. As in Triton one that asks for none, or for one that is not there, gets the default."""
        return request.priority if 0 < request.priority <= self.count else self._default_level

    def policy(self, level: int) -> QueuePolicy:
        """The policy of one level."""
        return self._policies.get(level, self._default)

    @property
    def prefetchable(self) -> bool:
        """Whether a batch may be formed before an instance is free for it, as nothing could happen to it meanwhile."""
        return self.count == 0 and self._default == QueuePolicy(delays=self._default.delays)


def queue_is_full(request: InferenceRequest) -> UnavailableError:
    """The error of a request that came to a full queue, in Triton's words."""
    return UnavailableError(f"[request id: {request.id or '<id_unknown>'}] Exceeds maximum queue size")


def timeout_expired() -> UnavailableError:
    """The error of a request that waited too long, in Triton's words."""
    return UnavailableError("Request timeout expired")


def eager(config: ModelConfig) -> bool:
    """Whether the next batch is to be formed while an instance computes, full or not."""
    return bool(config.optimization.eager_batching)
