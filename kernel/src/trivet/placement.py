"""Which instances a model gets, and on which device each runs.

Source: Triton model configuration, "Instance Groups": without one a model gets an instance on each GPU, else one on the
CPU; ``KIND_GPU`` without ``gpus`` means every GPU; the count is per device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.backend import InstanceContext
from trivet.errors import UnavailableError

if TYPE_CHECKING:
    from trivet.config import ModelConfig


def gpu_count() -> int:
    """GPUs that this process may use, without a GPU library: what the NVIDIA driver lists, less what is masked."""
    driver = Path("/proc/driver/nvidia/gpus")
    present = len(list(driver.iterdir())) if driver.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    # CUDA stops reading the list at the first entry that is not a device.
    allowed = 0
    for entry in visible.split(","):
        if not entry.strip() or entry.strip() == "-1":
            break
        allowed += 1
    return min(present, allowed)


def place(config: ModelConfig, gpus: int) -> list[InstanceContext]:
    """The instances that a normalized configuration asks for.

    Raises :class:`~trivet.errors.UnavailableError` where a group wants a GPU that is not there.
    """
    contexts: list[InstanceContext] = []
    for group in config.instance_group:
        kind = group.Kind.Name(group.kind).removeprefix("KIND_")
        if kind == "AUTO":
            kind = "GPU" if gpus else "CPU"
        devices = list(group.gpus) or list(range(gpus)) if kind == "GPU" else [0]
        missing = [device for device in devices if device >= gpus] if kind == "GPU" else []
        if missing or not devices:
            raise UnavailableError(
                f"instance group '{group.name}' of model '{config.name}' wants GPU {missing or 'instances'} and this"
                f" machine has {gpus} usable GPUs; use KIND_CPU or name GPUs that exist"
            )
        number = 0
        for device in devices:
            for _ in range(max(group.count, 1)):
                contexts.append(
                    InstanceContext(
                        name=f"{group.name}_{number}",
                        kind="GPU" if kind == "GPU" else "MODEL" if kind == "MODEL" else "CPU",
                        device_id=device,
                        profiles=tuple(group.profile),
                    )
                )
                number += 1
    return contexts
