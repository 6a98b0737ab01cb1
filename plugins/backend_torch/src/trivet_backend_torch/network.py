"""A network in memory, whatever kind of file it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trivet_backend_torch.signature import Signature


@dataclass(slots=True)
class Network:
    """What an instance runs. Instances share one only with ``ENABLE_WEIGHT_SHARING``."""

    forward: Callable[..., Any]
    signature: Signature
    module: Any = None
    """The ``torch.nn.Module`` or ``ScriptModule``, where there is one."""
    close: Callable[[], None] = field(default=lambda: None)
    """Let go of what is outside the object (a module's code)."""

    def call(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run it. Raises what the network raises."""
        return self.forward(*arguments, **keywords)
