"""Host policies: on which cores an instance's thread runs, and from which NUMA node its memory comes.

A thread that is started by a bound thread is bound like it, so the thread pools that frameworks start while an instance
is created stay on its cores too, as long as the framework does not bind them itself.

Source: tritonserver's ``--host-policy`` and ``instance_group.host_policy``; set_mempolicy(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trivet.errors import InvalidArgumentError, UnavailableError

CPU_CORES = "cpu-cores"
NUMA_NODE = "numa-node"

_MPOL_BIND = 2
_SYS_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237}
_ONLINE_NODES = Path("/sys/devices/system/node/online")
_MOST_CORES = 65536
_MOST_NODES = 1024
"""Of any Linux; a range is written out, so a number without bound could fill the memory."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """One policy. Without cores and node it asks for nothing."""

    name: str = ""
    cpu_cores: frozenset[int] = frozenset()
    numa_node: int | None = None

    @property
    def binds(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.cpu_cores) or self.numa_node is not None

    def apply(self) -> None:
        """Bind the calling thread, and what it starts from now on.

        Raises :class:`~trivet.errors.InvalidArgumentError` for cores or a node that are not there, and
        :class:`~trivet.errors.UnavailableError` where the operating system cannot do it or refuses.
        """
        if self.cpu_cores:
            self._bind_cores()
        if self.numa_node is not None:
            self._bind_memory(self.numa_node)

    def _bind_cores(self) -> None:
        setting = self._setting(CPU_CORES, ranges(self.cpu_cores))
        if not sys.platform.startswith("linux"):
            raise UnavailableError(f"{setting}: {sys.platform} cannot bind threads to cores; leave it out")
        try:
            # 0 is the calling thread, not the process. Cores that are not there are passed over if any is.
            os.sched_setaffinity(0, self.cpu_cores)
        except OSError as error:
            raise InvalidArgumentError(
                f"{setting}: Unable to set NUMA thread affinity: {error.strerror}; this process may use the cores"
                f" {ranges(os.sched_getaffinity(0))}"
            ) from error

    def _bind_memory(self, node: int) -> None:
        setting = self._setting(NUMA_NODE, str(node))
        number = _SYS_SET_MEMPOLICY.get(platform.machine()) if sys.platform.startswith("linux") else None
        if number is None:
            raise UnavailableError(
                f"{setting}: how to bind memory to a NUMA node is known for Linux on {', '.join(_SYS_SET_MEMPOLICY)},"
                f" not for {sys.platform} on {platform.machine()}; leave it out"
            )
        bits = 8 * ctypes.sizeof(ctypes.c_ulong)
        mask = (ctypes.c_ulong * (node // bits + 1))()
        mask[node // bits] = 1 << node % bits
        libc = ctypes.CDLL(None, use_errno=True)
        # The kernel reads one bit less than it is told of.
        if libc.syscall(ctypes.c_long(number), _MPOL_BIND, mask, ctypes.c_ulong(len(mask) * bits + 1)) != 0:
            reason = os.strerror(ctypes.get_errno())
            nodes = _ONLINE_NODES.read_text().strip() if _ONLINE_NODES.exists() else "none known"
            raise InvalidArgumentError(
                f"{setting}: Unable to set NUMA memory policy: {reason}; this machine has the nodes {nodes}"
            )

    def _setting(self, key: str, value: str) -> str:
        return f"host policy '{self.name}', {key}={value}"


def parse_host_policies(values: Sequence[str]) -> dict[str, HostPolicy]:
    """Read the ``NAME,KEY=VALUE`` of ``--host-policy``, one setting each, into policies by name.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting what is malformed.
    """
    policies: dict[str, HostPolicy] = {}
    for text in values:
        name, _, setting = text.partition(",")
        key, _, value = setting.partition("=")
        if not (name and key and value):
            raise InvalidArgumentError(f"--host-policy option format is '<policy name>,<setting>=<value>'. Got {text}")
        policy = policies.get(name, HostPolicy(name))
        if key == CPU_CORES:
            policy = replace(policy, cpu_cores=_cores(text, value))
        elif key == NUMA_NODE:
            policy = replace(policy, numa_node=_number(text, value, _MOST_NODES))
        else:
            raise InvalidArgumentError(
                f"--host-policy={text}: policy '{name}' has no setting '{key}'; there are {CPU_CORES} and {NUMA_NODE}"
            )
        policies[name] = policy
    return policies


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as they are written in ``cpu-cores``, e.g. ``0-3,8``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _cores(text: str, value: str) -> frozenset[int]:
    cores: set[int] = set()
    for part in value.split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        lower = _number(text, match[1], _MOST_CORES) if match else 0
        upper = _number(text, match[2], _MOST_CORES) if match and match[2] else lower
        if match is None or upper < lower:
            raise InvalidArgumentError(
                f"--host-policy={text}: setting '{CPU_CORES}' is a list of cores and ranges, e.g. 0-3,8. Got {part}"
            )
        cores.update(range(lower, upper + 1))
    return frozenset(cores)


def _number(text: str, value: str, most: int) -> int:
    # As far as the length goes, too: Python refuses to read a number of many thousand digits.
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) >= most:
        raise InvalidArgumentError(f"--host-policy={text}: expected a number from 0 to {most - 1}. Got {value}")
    return int(value)
