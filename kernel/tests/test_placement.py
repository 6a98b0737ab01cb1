"""Which instances a configuration gives, on which devices, and what they are told. Placing on a GPU needs none."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from trivet import config as model_config
from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.hookspecs import BackendPlugin
from trivet.host_policy import HostPolicy
from trivet.placement import Placement, describe, gpu_count, place
from trivet.resources import Share

BACKEND = BackendPlugin(name="b", factory="b:B")


def placed(groups: str, gpus: int = 2) -> list[Placement]:
    """The instances of a model with these groups, as a machine with that many GPUs would place them."""
    config = text_format.Parse(f'name: "m" backend: "b" {groups}', ModelConfig())
    model_config.normalize(config, backend=BACKEND, gpu_count=gpus)
    model_config.validate(config, backend=BACKEND, gpu_count=gpus)
    return place(config, gpus, {"gpu_1": HostPolicy("gpu_1", frozenset({5}))})


def where(groups: str, gpus: int = 2) -> list[tuple[str, str, int]]:
    return [(p.context.name, p.context.kind, p.context.device_id) for p in placed(groups, gpus)]


@pytest.mark.parametrize(
    ("groups", "gpus", "expected"),
    [
        ("", 0, [("m_0", "CPU", 0)]),
        ("", 2, [("m_0", "GPU", 0), ("m_1", "GPU", 1)]),
        ("instance_group { count: 2 }", 0, [("m_0_0", "CPU", 0), ("m_0_1", "CPU", 0)]),
        ("instance_group { kind: KIND_GPU }", 2, [("m_0_0", "GPU", 0), ("m_0_1", "GPU", 1)]),
        ("instance_group { count: 2 gpus: [1] }", 2, [("m_0_0", "GPU", 1), ("m_0_1", "GPU", 1)]),
        (
            "instance_group { kind: KIND_GPU count: 2 gpus: [0, 1] }",
            2,
            [("m_0_0", "GPU", 0), ("m_0_1", "GPU", 0), ("m_0_2", "GPU", 1), ("m_0_3", "GPU", 1)],
        ),
        ("instance_group { kind: KIND_CPU }", 2, [("m_0_0", "CPU", 0)]),
        ("instance_group { kind: KIND_MODEL count: 2 }", 2, [("m_0_0", "MODEL", 0), ("m_0_1", "MODEL", 0)]),
        (
            'instance_group [{ name: "here" kind: KIND_GPU gpus: [1] }, { name: "there" kind: KIND_CPU }]',
            2,
            [("here_0", "GPU", 1), ("there_0", "CPU", 0)],
        ),
    ],
)
def test_groups_become_instances_on_devices(groups: str, gpus: int, expected: list[tuple[str, str, int]]) -> None:
    assert where(groups, gpus) == expected


@pytest.mark.parametrize(
    ("groups", "gpus", "message"),
    [
        ("kind: KIND_GPU", 0, "instance group m_0 of model m has kind KIND_GPU but no GPUs are available"),
        ("kind: KIND_GPU gpus: [2]", 2, "instance group m_0 of model m specifies invalid or unsupported gpu id 2"),
        (
            "kind: KIND_CPU gpus: [0]",
            2,
            "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
        ),
        ("kind: KIND_MODEL gpus: [0]", 2, "has kind KIND_MODEL but specifies one or more GPUs"),
        ("gpus: [7]", 2, "has kind KIND_CPU but specifies one or more GPUs"),
    ],
)
def test_a_group_that_cannot_be_placed_is_refused(groups: str, gpus: int, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        placed(f"instance_group {{ {groups} }}", gpus)


def test_a_configuration_that_nobody_checked_is_not_placed_on_what_is_not_there() -> None:
    with pytest.raises(UnavailableError, match=r"wants GPU \[3\] and this machine has 1 usable GPUs"):
        place(ModelConfig(instance_group=[{"kind": "KIND_GPU", "gpus": [0, 3]}]), 1)


def test_each_instance_has_the_policy_of_its_device_unless_its_group_names_one() -> None:
    policies = [
        p.context.host_policy
        for p in placed(
            'instance_group [{ kind: KIND_GPU }, { kind: KIND_CPU }, { kind: KIND_MODEL }, { host_policy: "gpu_1" }]'
        )
    ]
    bound = HostPolicy("gpu_1", frozenset({5}))
    assert policies == [HostPolicy("gpu_0"), bound, HostPolicy("cpu"), HostPolicy("model"), bound, bound]


def test_what_a_group_says_reaches_the_backend() -> None:
    (placement,) = placed(
        "instance_group { kind: KIND_CPU passive: true secondary_devices { kind: KIND_NVDLA device_id: 3 } }"
    )
    assert placement.context.passive
    assert placement.context.secondary_devices == (("NVDLA", 3),)


def test_resources_are_those_of_the_instances_device_or_of_all() -> None:
    shares = [
        p.share
        for p in placed(
            "instance_group { kind: KIND_GPU rate_limiter { priority: 2"
            ' resources [{ name: "R" count: 2 }, { name: "S" global: true count: 3 }] } }'
        )
    ]
    assert shares == [
        Share({(0, "R"): 2, (None, "S"): 3}, priority=2),
        Share({(1, "R"): 2, (None, "S"): 3}, priority=2),
    ]
    assert [p.share for p in placed("", 0)] == [Share({}, priority=1)]


@pytest.mark.parametrize(
    ("groups", "gpus", "expected"),
    [
        ("instance_group { count: 2 kind: KIND_CPU }", 0, "2 CPU"),
        ("instance_group [{ count: 2 }, { kind: KIND_CPU passive: true }]", 2, "2 GPU 0, 2 GPU 1, 1 CPU passive"),
        ("instance_group { kind: KIND_MODEL }", 1, "1 MODEL"),
    ],
)
def test_instances_are_summed_up(groups: str, gpus: int, expected: str) -> None:
    assert describe(placed(groups, gpus)) == expected


@pytest.mark.parametrize(
    ("driver", "files", "visible", "count"),
    [
        (4, 4, None, 4),
        (4, 0, None, 4),  # nobody has used the driver yet
        (8, 1, None, 1),  # a container that was given one of the machine's
        (0, 0, None, 0),
        (4, 4, "0,1", 2),
        (4, 4, " 3 ", 1),
        (4, 4, "0,9,1", 1),
        (4, 4, "0,-1,1", 1),
        (4, 4, "", 0),
        (4, 4, "GPU-1b2c,MIG-3d", 2),
        (1, 1, "GPU-1b2c,GPU-4e", 1),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(
    driver: int, files: int, visible: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus, devices = tmp_path / "gpus", tmp_path / "dev"
    for folder in (gpus, devices):
        folder.mkdir()
    for index in range(driver):
        (gpus / f"0000:0{index}:00.0").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{index}" for index in range(files))):
        (devices / name).touch()
    monkeypatch.setattr("trivet.placement._DRIVER", gpus)
    monkeypatch.setattr("trivet.placement._DEVICES", devices)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count
