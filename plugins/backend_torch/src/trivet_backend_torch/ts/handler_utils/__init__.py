"""``ts.handler_utils``."""

from trivet_backend_torch.ts.handler_utils.micro_batching import MicroBatching

__all__ = ["MicroBatching"]
