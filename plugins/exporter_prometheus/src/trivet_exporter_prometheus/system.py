"""Metrics of the machine: its CPU, memory and GPUs. On a worker thread, as they ask the operating system."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import psutil

from trivet_exporter_prometheus.families import Family, label_text

logger = logging.getLogger(__name__)


class Machine:
    """CPU and memory, read again when the last reading is ``interval_s`` seconds old."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._read_s = monotonic()
        self._utilization = 0.0
        psutil.cpu_percent()  # the next call tells what happened since this one

    def collect(self) -> Iterator[Family]:
        """The families, as Triton has them: of all processors together, and of memory without what could be freed."""
        now_s = monotonic()
        if now_s - self._read_s >= self._interval_s:
            self._utilization = psutil.cpu_percent() / 100
            self._read_s = now_s
        memory = psutil.virtual_memory()
        yield _gauge("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", self._utilization)
        yield _gauge("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", memory.total)
        yield _gauge("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", memory.total - memory.available)


class Gpus:
    """What NVIDIA's management library says of each GPU. Made and closed by whoever collects."""

    def __init__(self, library: Any) -> None:
        """``library`` is the module ``pynvml``. Raises its ``NVMLError`` where there is no driver."""
        self._library = library
        library.nvmlInit()
        self._handles: list[tuple[str, Any]] = []
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            uuid = library.nvmlDeviceGetUUID(handle)
            self._handles.append((uuid.decode() if isinstance(uuid, bytes) else uuid, handle))

    @classmethod
    def find(cls) -> Gpus | None:
        """The GPUs of this machine; ``None`` where there are none, or the library is not installed."""
        try:
            import pynvml  # noqa: PLC0415 - it is optional
        except ImportError:
            logger.debug("no metrics of GPUs: pip install 'trivet-exporter-prometheus[gpu]'")
            return None
        try:
            return cls(pynvml)
        except pynvml.NVMLError as error:
            logger.info("no metrics of GPUs: %s", error)
            return None

    def collect(self) -> Iterator[Family]:
        """The families, under Triton's names. A GPU that does not tell something is left out of that family."""
        nvml = self._library
        readings: tuple[tuple[str, str, str, Callable[[Any], float]], ...] = (
            ("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", "gauge",
             lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
            ("nv_gpu_memory_total_bytes", "GPU total memory, in bytes", "gauge",
             lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
            ("nv_gpu_memory_used_bytes", "GPU used memory, in bytes", "gauge",
             lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
            ("nv_gpu_power_usage", "GPU power usage in watts", "gauge",
             lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            ("nv_gpu_power_limit", "GPU power management limit in watts", "gauge",
             lambda gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000),
            ("nv_energy_consumption", "GPU energy consumption in joules since the driver was loaded", "counter",
             lambda gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000),
        )  # fmt: skip
        for name, description, kind, read in readings:
            family = Family(name, description, "counter" if kind == "counter" else "gauge")
            for uuid, handle in self._handles:
                try:
                    family.add(label_text({"gpu_uuid": uuid}), read(handle))
                except nvml.NVMLError as error:
                    logger.debug("GPU %s does not tell %s: %s", uuid, name, error)
            yield family

    def close(self) -> None:
        """Let go of the driver."""
        self._library.nvmlShutdown()


def _gauge(name: str, description: str, value: float) -> Family:
    family = Family(name, description, "gauge")
    family.add("", value)
    return family
