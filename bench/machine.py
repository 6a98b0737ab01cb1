"""What a process and the machine spend: memory of one, and the processor time that other programs took."""

from __future__ import annotations

import os
import platform
import re
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

MB = 1e6


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    return _status_bytes(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The most that was resident since the process began or :func:`reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Let the peak begin again at what is resident now (Linux, proc(5), ``clear_refs``)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_bytes(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def processor_s(pid: int) -> float:
    """Processor time of a process and everything it started, ended children included."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class OthersMeter:
    """How much of the machine programs that do not belong to the benchmark used, since the last reading."""

    def __init__(self) -> None:
        self._last = (0.0, 0.0, 0.0)
        self.share()  # sets the point that the first reading counts from

    def share(self) -> float:
        """0 to 1 of all processors together. More than a few percent means that figures are too low."""
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice  # user has guest in it
        reading = (time.perf_counter(), busy, processor_s(os.getpid()))
        wall, all_busy, own = (new - old for new, old in zip(reading, self._last, strict=True))
        self._last = reading
        return min(1.0, max(0.0, (all_busy - own) / (wall * (psutil.cpu_count() or 1))))


def description() -> dict[str, Any]:
    """The machine and the versions that figures depend on."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    packages = ("trivet-kernel", "numpy", "onnxruntime", "uvloop", "httptools", "grpcio", "pygrpc-native")
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
