"""CPU, memory and GPUs, as an exporter reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from trivet.machine import Gpus, Machine
from trivet.metrics import MetricKind
from trivet.placement import gpu_count


def read(source: Machine | Gpus) -> dict[str, list[float]]:
    return {reading.name: [sample.value for sample in reading.samples] for reading in source.read()}


def test_memory_is_what_the_machine_has_less_what_could_be_freed() -> None:
    found = read(Machine(0.0))
    assert found["nv_cpu_memory_total_bytes"] == [psutil.virtual_memory().total]
    assert 0 < found["nv_cpu_memory_used_bytes"][0] < found["nv_cpu_memory_total_bytes"][0]


def test_the_cpus_work_is_that_of_the_last_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ticks = SimpleNamespace(now=100.0), SimpleNamespace(busy=1000, total=5000)
    monkeypatch.setattr("trivet.machine.monotonic", lambda: clock.now)
    monkeypatch.setattr("trivet.machine._cpu_times", lambda: (ticks.busy, ticks.total))
    machine = Machine(2.0)
    clock.now, ticks.busy, ticks.total = 101.0, 1030, 5100
    assert read(machine)["nv_cpu_utilization"] == [0.0]  # not yet
    clock.now = 102.0
    assert read(machine)["nv_cpu_utilization"] == [0.3]
    clock.now, ticks.busy, ticks.total = 103.0, 1130, 5200
    assert read(machine)["nv_cpu_utilization"] == [0.3]
    clock.now = 104.0
    assert read(machine)["nv_cpu_utilization"] == [1.0]


def test_processors_that_work_are_told_from_those_that_wait() -> None:
    from trivet.machine import _cpu_times

    before, known = _cpu_times(), psutil.cpu_times()
    assert before[0] < before[1]
    idle_s = known.idle + known.iowait
    assert before[1] - before[0] == pytest.approx(idle_s * 100, rel=0.05)  # hundredths of a second


class NvmlError(Exception):
    """The library's own."""


@pytest.fixture(autouse=True)
def _nothing_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def nvml(**other: Any) -> Any:
    """NVIDIA's management library with two GPUs, the second of which tells nothing of its power."""

    def milliwatts(gpu: int) -> int:
        if gpu:
            raise NvmlError("Not Supported")
        return 71_500

    functions = {
        "NVMLError": NvmlError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda part: int(part[-1]),
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=25 + gpu),
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=1 << 30, used=1 << 20),
        "nvmlDeviceGetPowerUsage": milliwatts,
        "nvmlDeviceGetPowerManagementLimit": milliwatts,
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: 1_000_500,
    }
    return SimpleNamespace(**{**functions, **other})


def test_gpus_have_tritons_families_and_units() -> None:
    closed: list[bool] = []
    counted = iter([5_000_000, 7_000_000, 5_000_500, 7_000_500])
    gpus = Gpus(
        nvml(nvmlShutdown=lambda: closed.append(True), nvmlDeviceGetTotalEnergyConsumption=lambda gpu: next(counted))
    )
    readings = {reading.name: reading for reading in gpus.read()}
    assert {name: [sample.value for sample in reading.samples] for name, reading in readings.items()} == {
        "nv_gpu_utilization": [0.25, 0.26],
        "nv_gpu_memory_total_bytes": [1 << 30] * 2,
        "nv_gpu_memory_used_bytes": [1 << 20] * 2,
        "nv_gpu_power_usage": [71.5],
        "nv_gpu_power_limit": [71.5],
        "nv_energy_consumption": [0.5] * 2,  # since the server started
    }
    assert readings["nv_energy_consumption"].kind is MetricKind.COUNTER
    assert [sample.labels for sample in readings["nv_gpu_utilization"].samples] == [
        (("gpu_uuid", "GPU-0"),),
        (("gpu_uuid", "GPU-1"),),
    ]
    gpus.close()
    assert closed == [True]


def test_a_driver_that_is_loaded_anew_takes_nothing_off_what_was_used() -> None:
    counted = iter([1000, 3000, 500, 700])
    gpus = Gpus(nvml(nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetTotalEnergyConsumption=lambda gpu: next(counted)))
    assert [read(gpus)["nv_energy_consumption"] for _ in range(3)] == [[2], [2.5], [2.7]]


def test_a_gpu_that_is_lost_does_not_cost_the_others_their_metrics() -> None:
    lost: set[int] = {0}

    def uuid(gpu: int) -> bytes:
        if gpu in lost:
            raise NvmlError("GPU is lost")
        return f"GPU-{gpu}".encode()  # as earlier versions of the library have it

    def memory(gpu: int) -> Any:
        if gpu in lost:
            raise NvmlError("GPU is lost")
        return SimpleNamespace(total=1, used=1)

    gpus = Gpus(nvml(nvmlDeviceGetUUID=uuid, nvmlDeviceGetMemoryInfo=memory))
    (sample,) = next(iter(gpus.read())).samples
    assert sample.labels == (("gpu_uuid", "GPU-1"),)
    lost.add(1)
    assert read(gpus)["nv_gpu_memory_used_bytes"] == []


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", ["GPU-1"]),
        ("1, 0", ["GPU-1", "GPU-0"]),
        ("GPU-1,-1,0", ["GPU-1"]),
        ("0,0", ["GPU-0"]),
        ("MIG-1", ["GPU-1"]),
        ("GPU-7", []),
        ("", []),
    ],
)
def test_only_gpus_that_cuda_may_use_are_shown(visible: str, uuids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    samples = next(iter(Gpus(nvml()).read())).samples
    assert [sample.labels[0][1] for sample in samples] == uuids


def test_the_real_library_has_what_is_called() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert all(hasattr(pynvml, name) for name in vars(nvml()))


@pytest.mark.gpu
def test_a_real_gpu_tells_what_it_does() -> None:
    pytest.importorskip("pynvml")
    gpus = Gpus.find()
    if gpus is None or not gpu_count():
        pytest.skip("needs an NVIDIA GPU; this machine has none")
    found = read(gpus)
    gpus.close()
    assert {len(values) for values in found.values()} == {gpu_count()}
    for total, used in zip(found["nv_gpu_memory_total_bytes"], found["nv_gpu_memory_used_bytes"], strict=True):
        assert total > 1 << 30
        assert 0 < used < total
    assert all(0 <= share <= 1 for share in found["nv_gpu_utilization"])
    assert all(10 < watts < 2000 for watts in found["nv_gpu_power_limit"])
    assert all(0 <= joules < 10_000 for joules in found["nv_energy_consumption"])  # since a moment ago


def test_where_the_library_or_the_driver_is_missing_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_loaded() -> None:
        raise NvmlError("Driver Not Loaded")

    monkeypatch.setattr("trivet.machine.import_module", lambda name: nvml(nvmlInit=not_loaded))
    assert Gpus.find() is None

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("trivet.machine.import_module", missing)
    assert Gpus.find() is None
