"""Metrics of the machine: its CPU, memory and GPUs. For exporters, on a worker thread: the operating system is asked.

Source: names, texts and meaning of Triton's metrics; ``/proc/stat`` and ``/proc/meminfo`` of proc(5), from which Triton
has them too; NVIDIA's management library (NVML).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from trivet.metrics import Labels, MetricKind, Reading, Sample
from trivet.placement import visible_gpus

logger = logging.getLogger(__name__)

_STAT, _MEMORY = Path("/proc/stat"), Path("/proc/meminfo")
_IDLE = (3, 4)  # idle and iowait, among the times of a processor
_GUEST = 8  # guest and guest_nice are in user and nice already


class Machine:
    """CPU and memory. Nothing is read on a system that is not Linux. One thread at a time."""

    def __init__(self, interval_s: float) -> None:
        """The CPU's utilization is that of the last ``interval_s`` seconds, or more where nobody asks so often."""
        self._interval_s = interval_s
        self._available = _STAT.is_file() and _MEMORY.is_file()
        self._read_s = monotonic()
        self._times = _cpu_times() if self._available else (0, 0)
        self._utilization = 0.0

    def read(self) -> Iterator[Reading]:
        """Of all processors together, and of memory without what could be freed."""
        if not self._available:
            return
        now_s = monotonic()
        if now_s - self._read_s >= self._interval_s:
            busy, total = (now - before for now, before in zip(_cpu_times(), self._times, strict=True))
            self._times = self._times[0] + busy, self._times[1] + total
            self._utilization = busy / total if total else 0.0
            self._read_s = now_s
        total_bytes, available = _memory()
        yield _gauge("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", self._utilization)
        yield _gauge("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", total_bytes)
        yield _gauge("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", total_bytes - available)


def _cpu_times() -> tuple[int, int]:
    """Ticks in which the processors worked, and all ticks, since the machine started."""
    with _STAT.open() as file:
        times = [int(each) for each in file.readline().split()[1 : _GUEST + 1]]
    return sum(times) - sum(times[each] for each in _IDLE), sum(times)


def _memory() -> tuple[int, int]:
    """Bytes in all, and those that could be had without swapping."""
    with _MEMORY.open() as file:
        fields = dict(line.split(":", 1) for line in file)
    total, available = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    return total, available


class _Gpu:
    """One GPU, as NVML knows it."""

    def __init__(self, uuid: str, handle: Any) -> None:
        self.labels: Labels = (("gpu_uuid", uuid),)
        self.handle = handle
        self._counted: int | None = None
        self._used_mj = 0

    def joules(self, counted_mj: int) -> float:
        """What it has used since this was first asked; the driver counts from when it was loaded."""
        if self._counted is not None:
            # Less than before: the driver was loaded anew.
            self._used_mj += counted_mj - self._counted if counted_mj >= self._counted else counted_mj
        self._counted = counted_mj
        return self._used_mj / 1000


class Gpus:
    """What NVML says of each GPU that CUDA may use. Made, used and closed by one thread at a time."""

    def __init__(self, library: Any) -> None:
        """``library`` is the module ``pynvml``. Raises its ``NVMLError`` where there is no driver."""
        self._library = library
        library.nvmlInit()
        gpus = list(self._visible(self._all()))
        self._gpus = list({gpu.labels: gpu for gpu in gpus}.values())
        for _ in self.read():  # energy counts from here on
            pass

    def _all(self) -> dict[str, _Gpu]:
        """By number, that of the bus. One that is lost, or without power, does not cost the others theirs."""
        nvml, gpus = self._library, {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError as error:
                logger.warning("no metrics of GPU %d: %s", index, error)
            else:
                gpus[str(index)] = _Gpu(uuid.decode() if isinstance(uuid, bytes) else uuid, handle)
        return gpus

    def _visible(self, gpus: Mapping[str, _Gpu]) -> Iterator[_Gpu]:
        """Those that ``CUDA_VISIBLE_DEVICES`` names: by number, by the beginning of the UUID, or by a part's (MIG).

        CUDA's numbers are others only where GPUs of several kinds are in one machine, and ``CUDA_DEVICE_ORDER`` is not
        ``PCI_BUS_ID``.
        """
        visible = visible_gpus()
        if visible is None:
            yield from gpus.values()
            return
        for entry in visible:
            if entry in gpus:
                yield gpus[entry]
            else:
                uuid = self._whole_of(entry) if entry.startswith("MIG-") else entry
                yield from (gpu for gpu in gpus.values() if uuid and gpu.labels[0][1].startswith(uuid))

    def _whole_of(self, part: str) -> str:
        """The UUID of the GPU that a part belongs to, empty where there is none."""
        nvml = self._library
        try:
            handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvml.nvmlDeviceGetHandleByUUID(part))
            uuid = nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:
            logger.warning("no metrics of the GPU of %s: %s", part, error)
            return ""
        return uuid.decode() if isinstance(uuid, bytes) else str(uuid)

    @classmethod
    def find(cls) -> Gpus | None:
        """The GPUs of this machine; ``None`` where there are none, or the library is not installed."""
        try:
            library = import_module("pynvml")
        except ImportError:
            logger.debug("no metrics of GPUs: pip install nvidia-ml-py")
            return None
        try:
            return cls(library)
        except library.NVMLError as error:
            logger.info("no metrics of GPUs: %s", error)
            return None

    def read(self) -> Iterator[Reading]:
        """A GPU that does not tell something is left out of that."""
        nvml = self._library
        families: tuple[tuple[str, str, MetricKind, Callable[[_Gpu], float]], ...] = (
            ("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", MetricKind.GAUGE,
             lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu / 100),
            ("nv_gpu_memory_total_bytes", "GPU total memory, in bytes", MetricKind.GAUGE,
             lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu.handle).total),
            ("nv_gpu_memory_used_bytes", "GPU used memory, in bytes", MetricKind.GAUGE,
             lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu.handle).used),
            ("nv_gpu_power_usage", "GPU power usage in watts", MetricKind.GAUGE,
             lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu.handle) / 1000),
            ("nv_gpu_power_limit", "GPU power management limit in watts", MetricKind.GAUGE,
             lambda gpu: nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000),
            ("nv_energy_consumption", "GPU energy consumption in joules since the Triton Server started",
             MetricKind.COUNTER, lambda gpu: gpu.joules(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle))),
        )  # fmt: skip
        for name, description, kind, read in families:
            samples = []
            for gpu in self._gpus:
                try:
                    samples.append(Sample(gpu.labels, read(gpu)))
                except nvml.NVMLError as error:
                    logger.debug("GPU %s does not tell %s: %s", gpu.labels[0][1], name, error)
            yield Reading(name, description, kind, samples)

    def close(self) -> None:
        """Let go of the driver."""
        self._library.nvmlShutdown()


def _gauge(name: str, description: str, value: float) -> Reading:
    return Reading(name, description, MetricKind.GAUGE, [Sample((), value)])
