"""Which instances a model gets, and on which device each runs.

Source: Triton model configuration, "Instance Groups": without one a model gets an instance on each GPU, else one on the
CPU; ``KIND_GPU`` without ``gpus`` means every GPU; the count is per device.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.backend import InstanceContext, InstanceKind
from trivet.errors import UnavailableError
from trivet.host_policy import HostPolicy
from trivet.resources import Share

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.model_config_pb2 import ModelInstanceGroup


@dataclass(frozen=True, slots=True)
class Placement:
    """One instance of a model: what its backend is told, and what it wants of the rate limiter."""

    context: InstanceContext
    share: Share


def shares(placements: Sequence[Placement]) -> list[Share]:
    """What the instances that execute want of the rate limiter."""
    return [placement.share for placement in placements if not placement.context.passive]


_DRIVER, _DEVICES = Path("/proc/driver/nvidia/gpus"), Path("/dev")


def visible_gpus() -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names, by number or UUID; ``None`` where it is not set: all of them.

    CUDA stops reading at the first entry that is no device.
    """
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    entries = (entry.strip() for entry in value.split(","))
    return list(takewhile(lambda entry: entry and not entry.startswith("-"), entries))


def gpu_count() -> int:
    """GPUs that this process may use, without a GPU library: what the NVIDIA driver lists, less what is masked.

    Inside a container the driver may list all GPUs of the machine, and there are device files only of those that it was
    given. A driver that nothing has used yet may have made none.
    """
    present = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    files = sum(path.name.removeprefix("nvidia").isdecimal() for path in _DEVICES.glob("nvidia*"))
    if files:
        present = min(present, files)
    visible = visible_gpus()
    if visible is None:
        return present
    return min(present, sum(1 for _ in takewhile(lambda gpu: not gpu.isdecimal() or int(gpu) < present, visible)))


def place(config: ModelConfig, gpus: int, host_policies: Mapping[str, HostPolicy] | None = None) -> list[Placement]:
    """The instances that a normalized configuration asks for; ``host_policies`` are those of the command line.

    A group that names no host policy has that of its device, ``gpu_0``, ``cpu`` or ``model``, and one that nobody
    defined asks for nothing, as in Triton. Raises :class:`~trivet.errors.UnavailableError` where a group wants a GPU
    that is not there.
    """
    placements: list[Placement] = []
    for group in config.instance_group:
        kind = _kind(group, gpus)
        devices = list(group.gpus) or list(range(gpus)) if kind == "GPU" else [0]
        missing = [device for device in devices if device >= gpus] if kind == "GPU" else []
        if missing or not devices:
            raise UnavailableError(
                f"instance group '{group.name}' of model '{config.name}' wants GPU {missing or 'instances'} and this"
                f" machine has {gpus} usable GPUs; use KIND_CPU or name GPUs that exist"
            )
        on_devices = [device for device in devices for _ in range(max(group.count, 1))]
        for number, device in enumerate(on_devices):
            policy = group.host_policy or (f"gpu_{device}" if kind == "GPU" else kind.lower())
            context = InstanceContext(
                name=f"{group.name}_{number}",
                kind=kind,
                device_id=device,
                profiles=tuple(group.profile),
                host_policy=(host_policies or {}).get(policy, HostPolicy(policy)),
                secondary_devices=tuple(
                    (other.SecondaryDeviceKind.Name(other.kind).removeprefix("KIND_"), other.device_id)
                    for other in group.secondary_devices
                ),
                passive=group.passive,
            )
            placements.append(Placement(context, _share(group, device)))
    return placements


def describe(placements: Sequence[Placement]) -> str:
    """How many instances there are of each kind, for people: ``2 CPU``, ``1 GPU 0, 1 GPU 1``."""
    counts = Counter(_where(placement.context) for placement in placements)
    return ", ".join(f"{number} {where}" for where, number in counts.items())


def _where(context: InstanceContext) -> str:
    device = f"GPU {context.device_id}" if context.kind == "GPU" else context.kind
    return f"{device} passive" if context.passive else device


def _kind(group: ModelInstanceGroup, gpus: int) -> InstanceKind:
    name = group.Kind.Name(group.kind)
    if name == "KIND_MODEL":
        return "MODEL"
    return "GPU" if name == "KIND_GPU" or (name == "KIND_AUTO" and gpus) else "CPU"


def _share(group: ModelInstanceGroup, device: int) -> Share:
    limits = group.rate_limiter
    resources = {
        (None if getattr(resource, "global") else device, resource.name): resource.count
        for resource in limits.resources
    }
    return Share(resources, max(limits.priority, 1))
