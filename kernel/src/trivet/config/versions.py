"""Which versions of a model are served."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trivet.config.model_config_pb2 import ModelConfig

logger = logging.getLogger(__name__)


def select_versions(config: ModelConfig, available: Sequence[int]) -> list[int]:
    """The versions to serve of those in the repository, ascending. Empty where the policy allows none of them.

    Without a policy that is the latest one. A version that the policy names and the repository lacks is logged and left
    out. Source: Triton model configuration, "Version Policy"; an empty ``version_policy`` means all, as in Triton.
    """
    present = sorted(set(available))
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        for version in dict.fromkeys(policy.specific.versions):
            if version not in present:
                logger.error(
                    "version %d is specified for model '%s', but the version directory is not present",
                    version,
                    config.name,
                )
        return [version for version in present if version in policy.specific.versions]
    if choice == "latest":
        count = policy.latest.num_versions
    elif config.HasField("version_policy"):
        count = len(present)
    else:
        count = 1
    return present[len(present) - min(count, len(present)) :]
