"""Which providers an instance gets, with which options, and what happens where they are missing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from trivet.backend import ArrayInstance, InstanceContext
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.placement import gpu_count
from trivet.tensor import Tensor
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.providers import CPU, CUDA, OPENVINO, TENSORRT, execution_providers
from trivet_backend_onnx.runtime import ort

Instance = Callable[..., ArrayInstance]


def accelerator(where: str, name: str, **parameters: str) -> str:
    """Text of a config.pbtxt that asks for one accelerator."""
    return f"optimization {{ execution_accelerators {{ {one(where, name, **parameters)} }} }} "


def one(where: str, name: str, **parameters: str) -> str:
    values = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items())
    return f'{where}_execution_accelerator {{ name: "{name}" {values} }} '


def test_a_cpu_instance_has_the_cpu_alone(context: Any) -> None:
    assert execution_providers(context(None), "CPU", 0) == [(CPU, {})]
    assert execution_providers(context(None), "MODEL", 0) == [(CPU, {})]


def test_a_gpu_instance_has_cuda_on_its_device(context: Any) -> None:
    assert execution_providers(context(None), "GPU", 3) == [(CUDA, {"device_id": "3"}), (CPU, {})]


def test_accelerators_go_first(context: Any) -> None:
    both = one("cpu", "openvino") + one("gpu", "tensorrt")
    config = f"optimization {{ execution_accelerators {{ {both} }} }}"
    assert [name for name, _ in execution_providers(context(None, config), "GPU", 0)] == [TENSORRT, CUDA, OPENVINO, CPU]
    assert [name for name, _ in execution_providers(context(None, config), "CPU", 0)] == [OPENVINO, CPU]


def test_tensorrt_parameters(context: Any) -> None:
    config = accelerator(
        "gpu",
        "tensorrt",
        precision_mode="FP16",
        max_workspace_size_bytes="1073741824",
        int8_calibration_table_name="table",
        int8_use_native_calibration_table="false",
        trt_engine_cache_enable="1",
        trt_engine_cache_path="/cache",
        trt_auxiliary_streams="-1",
        trt_profile_min_shapes="x:1x3",
    )
    assert execution_providers(context(None, config), "GPU", 1)[0] == (
        TENSORRT,
        {
            "device_id": "1",
            "trt_fp16_enable": "True",
            "trt_max_workspace_size": "1073741824",
            "trt_int8_calibration_table_name": "table",
            "trt_int8_use_native_calibration_table": "False",
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": "/cache",
            "trt_auxiliary_streams": "-1",
            "trt_profile_min_shapes": "x:1x3",
        },
    )


def test_cuda_options_in_both_spellings(context: Any) -> None:
    older = " ".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'
        for key, value in {
            "cudnn_conv_algo_search": "1",
            "gpu_mem_limit": "18446744073709551615",
            "arena_extend_strategy": "1",
            "do_copy_in_default_stream": "0",
        }.items()
    )
    newer = accelerator(
        "gpu",
        "cuda",
        cudnn_conv_algo_search="DEFAULT",
        use_ep_level_unified_stream="true",
        use_tf32="off",
        tunable_op_max_tuning_duration_ms="20",
        option_of_tomorrow="as it is",
    )
    assert execution_providers(context(None, older + newer), "GPU", 0)[0] == (
        CUDA,
        {
            "device_id": "0",
            "cudnn_conv_algo_search": "DEFAULT",  # the accelerator's own parameter wins
            "gpu_mem_limit": "18446744073709551615",
            "arena_extend_strategy": "kSameAsRequested",
            "do_copy_in_default_stream": "0",
            "use_ep_level_unified_stream": "1",
            "use_tf32": "0",
            "tunable_op_max_tuning_duration_ms": "20",
            "option_of_tomorrow": "as it is",
        },
    )


def test_openvino_options(context: Any) -> None:
    config = accelerator("cpu", "openvino", num_of_threads="2", precision="FP32")
    assert execution_providers(context(None, config), "CPU", 0)[0] == (
        OPENVINO,
        {"device_type": "CPU", "num_of_threads": "2", "precision": "FP32"},
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            accelerator("gpu", "auto_mixed_precision"),
            (
                "unknown Execution Accelerator 'auto_mixed_precision' is requested in gpu_execution_accelerator of"
                " model 'm', expected one of tensorrt, cuda"
            ),
        ),
        (accelerator("cpu", "tensorrt"), "unknown Execution Accelerator 'tensorrt' is requested in cpu_execution"),
        (
            accelerator("gpu", "tensorrt", trt_magic="1"),
            (
                "unknown parameter 'trt_magic' is provided for TensorRT Execution Accelerator;"
                " gpu_execution_accelerator 'tensorrt' of model 'm' can have int8_calibration_table_name"
            ),
        ),
        (
            accelerator("gpu", "tensorrt", precision_mode="FP8"),
            (
                "parameter 'precision_mode' of gpu_execution_accelerator 'tensorrt' of model 'm' is 'FP8', expected"
                " one of FP32, FP16, BF16, INT8"
            ),
        ),
        (accelerator("gpu", "tensorrt", trt_dla_core="a"), "parameter 'trt_dla_core' of gpu_execution_accelerator"),
        (accelerator("gpu", "tensorrt", max_workspace_size_bytes="1G"), "parameter 'max_workspace_size_bytes' of"),
        (accelerator("gpu", "cuda", user_compute_stream="0"), "is set by the server and cannot be given"),
        (
            accelerator("gpu", "cuda", prefer_nhwc="maybe"),
            "parameter 'prefer_nhwc' of gpu_execution_accelerator 'cuda'",
        ),
        (
            accelerator("gpu", "cuda", sdpa_kernel="flash"),
            "parameter 'sdpa_kernel' of gpu_execution_accelerator 'cuda'",
        ),
        (
            accelerator("gpu", "cuda", cudnn_conv_algo_search="FASTEST"),
            "is 'FASTEST', expected one of 0, 1, 2, EXHAUSTIVE, HEURISTIC, DEFAULT",
        ),
        (
            accelerator("cpu", "openvino", speed="max"),
            "unknown parameter 'speed' is provided for OpenVINO Execution Accelerator",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(config: str, message: str, context: Any) -> None:
    """Also by a CPU instance, which does not use the GPU's accelerators."""
    with pytest.raises(InvalidArgumentError) as raised:
        execution_providers(context(None, config), "CPU", 0)
    assert message in str(raised.value)


def test_a_build_without_cuda_says_how_to_get_it(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    with pytest.raises(
        UnavailableError,
        match=r"model 'm' needs CUDAExecutionProvider, which the installed onnxruntime .* does not have .*"
        r"pip install 'trivet-backend-onnx\[gpu\]', or set instance_group \{ kind: KIND_CPU \}",
    ):
        instance(context(add_sub), kind="GPU")


def test_a_build_without_openvino_says_how_to_get_it(
    add_sub: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    if OPENVINO in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has OpenVINO")
    with pytest.raises(UnavailableError, match="pip install onnxruntime-openvino"):
        instance(context(add_sub, accelerator("cpu", "openvino")))


def test_a_silent_fallback_to_the_cpu_fails_the_load(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build lists CUDA, as it does on a machine without a GPU, and the session comes up without it.

    The provider list and the request for CUDA are all that is changed here: the session is a real one, on the CPU.
    """
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(
        ort, "InferenceSession", lambda path, options, providers, **more: real(path, options, providers=[CPU], **more)
    )
    with pytest.raises(
        UnavailableError,
        match=r"model 'm' needs CUDAExecutionProvider on device 1, but ONNX Runtime fell back to CPUExecutionProvider;"
        r" check that the device is there \(nvidia-smi\)",
    ):
        instance(context(add_sub), kind="GPU", device_id=1)


def test_tensorrt_is_found_where_pip_put_it(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of the name of the one with the libraries, which loads them when it is imported."""
    (tmp_path / "tensorrt_libs.py").write_text("loaded = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort, "InferenceSession", lambda path, options, providers, **more: real(path, options, providers=[CPU], **more)
    )
    with pytest.raises(UnavailableError, match=r"pip install 'trivet-backend-onnx\[gpu\]' 'tensorrt<11'"):
        instance(context(add_sub, accelerator("gpu", "tensorrt")), kind="GPU")
    assert sys.modules.pop("tensorrt_libs").loaded


@pytest.mark.parametrize(
    ("share", "lines"),
    [
        ("1", ["model 'm' version 1 runs on CPUExecutionProvider"]),
        (
            "0",
            [
                "instance 'm_0' of model 'm' version 1 runs on CPUExecutionProvider",
                "instance 'm_1' of model 'm' version 1 runs on CPUExecutionProvider",
            ],
        ),
    ],
)
def test_the_log_says_what_a_session_runs_on(
    share: str,
    lines: list[str],
    add_sub: onnx.ModelProto,
    context: Any,
    backend: OnnxBackend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = f'parameters {{ key: "share_session_between_instances" value {{ string_value: "{share}" }} }}'
    made_context = context(add_sub, config)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    with caplog.at_level(logging.INFO, logger="trivet.model.m"):
        for name in ("m_0", "m_1"):
            model.create_instance(InstanceContext(name, "CPU"))
    nodes = ": 2 nodes" if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info") else ""
    assert [record.message for record in caplog.records] == [line + nodes for line in lines]


def test_each_instance_on_a_gpu_has_a_session_and_so_a_stream_of_its_own(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of CUDA makes itself a stream, as nobody gives it one. The sessions here are real ones, on the CPU."""
    made_context = context(add_sub)
    assert not [
        option for _, options in execution_providers(made_context, "GPU", 1) for option in options if "stream" in option
    ]
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    real, made = ort.InferenceSession, []

    class OnCpu:
        def __init__(self, path: str, options: Any, providers: Any, **more: Any) -> None:
            self._session = real(path, options, providers=[CPU], **more)
            made.append(dict(providers)[CUDA]["device_id"])

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", OnCpu)
    for number, device in enumerate([0, 0, 1]):
        model.create_instance(InstanceContext(f"m_{number}", "GPU", device))
    assert made == ["0", "0", "1"]


@pytest.mark.gpu
@pytest.mark.skipif(
    not gpu_count() or CUDA not in ort.get_available_providers(), reason="needs a GPU and onnxruntime-gpu"
)
def test_instances_on_one_gpu_compute_side_by_side(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    made_context = context(add_sub)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    instances: list[Any] = [model.create_instance(InstanceContext(f"m_{number}", "GPU")) for number in range(2)]
    sessions = [instance._session for instance in instances]
    assert sessions[0] is not sessions[1]
    assert [session.get_provider_options()[CUDA]["has_user_compute_stream"] for session in sessions] == ["0", "0"]

    def run(number: int) -> bool:
        a = Tensor.from_numpy("a", np.full((1, 4), number, np.float32))
        results = instances[number % 2].execute({"a": a, "b": a.renamed("b")}, ["sum"])
        return bool((results["sum"] == 2 * number).all())

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, range(200)))


@pytest.mark.gpu
@pytest.mark.skipif(
    not gpu_count() or CUDA not in ort.get_available_providers(), reason="needs a GPU and onnxruntime-gpu"
)
def test_a_gpu_computes(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    made: Any = instance(context(add_sub), kind="GPU")
    assert CUDA in made._session.get_providers()
    a = Tensor.from_numpy("a", np.arange(4, dtype=np.float32).reshape(1, 4))
    results = made.execute({"a": a, "b": a.renamed("b")}, ["sum", "difference"])
    assert results["sum"].tolist() == [[0, 2, 4, 6]]
    assert results["difference"].tolist() == [[0, 0, 0, 0]]
