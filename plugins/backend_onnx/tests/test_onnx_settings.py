"""Parameters by Triton's names, from the model's configuration and from --backend-config."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from trivet.backend import ArrayInstance, InstanceContext
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.tensor import Tensor
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.settings import BackendOptions, SessionSettings, warn_of_unused

Instance = Callable[..., ArrayInstance]


def parameters(**values: str) -> str:
    """Text of a config.pbtxt; ``__`` in a name stands for a dot."""
    return " ".join(
        f'parameters {{ key: "{name.replace("__", ".")}" value: {{ string_value: "{value}" }} }}'
        for name, value in values.items()
    )


def run(instance: ArrayInstance) -> None:
    ones = np.ones((1, 4), dtype=np.float32)
    results = instance.execute({"a": Tensor.from_numpy("a", ones), "b": Tensor.from_numpy("b", ones)}, ["sum"])
    np.testing.assert_array_equal(results["sum"], ones * 2)


def session_options(instance: Any) -> Any:
    return instance._session.get_session_options()


def test_defaults_are_onnx_runtimes(add_sub: onnx.ModelProto, context: Any) -> None:
    assert SessionSettings.read(context(add_sub)) == SessionSettings()


def test_every_parameter_reaches_the_session(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    config = parameters(
        intra_op_thread_count="3",
        inter_op_thread_count="2",
        execution_mode="1",
        enable_mem_arena="off",
        enable_mem_pattern="0",
        session__use_device_allocator_for_initializers="1",
        session__intra_op__allow_spinning="0",
    )
    made = instance(context(add_sub, config + " optimization { graph { level: 1 } }"))
    options = session_options(made)
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 2
    assert options.execution_mode.name == "ORT_PARALLEL"
    assert options.enable_cpu_mem_arena is False
    assert options.enable_mem_pattern is False
    assert options.graph_optimization_level.name == "ORT_ENABLE_EXTENDED"
    assert options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    run(made)


@pytest.mark.parametrize(
    ("level", "name"),
    [(0, "ORT_ENABLE_ALL"), (-1, "ORT_ENABLE_BASIC"), (1, "ORT_ENABLE_EXTENDED"), (2, "ORT_DISABLE_ALL")],
)
def test_graph_optimization_level(level: int, name: str, add_sub: onnx.ModelProto, context: Any) -> None:
    read = SessionSettings.read(context(add_sub, f"optimization {{ graph {{ level: {level} }} }}"))
    assert read.optimization == name


def test_the_models_own_value_wins_over_the_backends(add_sub: onnx.ModelProto, context: Any) -> None:
    options = {"intra_op_thread_count": "7", "inter_op_thread_count": "5"}
    read = SessionSettings.read(context(add_sub, parameters(intra_op_thread_count="2"), options=options))
    assert (read.intra_op_threads, read.inter_op_threads) == (2, 5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            parameters(intra_op_thread_count="many"),
            "parameter 'intra_op_thread_count' of model 'm' is 'many', expected an integer from 0 to 4096",
        ),
        (
            parameters(inter_op_thread_count="-1"),
            "parameter 'inter_op_thread_count' of model 'm' is '-1', expected an integer from 0 to 4096",
        ),
        (
            parameters(intra_op_thread_count="9" * 5000),
            "expected an integer from 0 to 4096",
        ),
        (parameters(execution_mode="2"), "parameter 'execution_mode' of model 'm' is '2', expected one of 0, 1"),
        (
            parameters(enable_mem_arena="maybe"),
            "parameter 'enable_mem_arena' of model 'm' is 'maybe', expected one of true, on, 1, false, off, 0",
        ),
        (parameters(enable_mem_pattern=""), "parameter 'enable_mem_pattern' of model 'm' is '', expected one of"),
        (parameters(share_session_between_instances="2"), "parameter 'share_session_between_instances' of model 'm'"),
        (
            parameters(memory__enable_memory_arena_shrinkage="tpu:0"),
            "parameter 'memory.enable_memory_arena_shrinkage' of model 'm' is 'tpu:0', expected a list of devices",
        ),
        (
            parameters(memory__enable_memory_arena_shrinkage="cpu:0", enable_mem_arena="0"),
            "expected no 'cpu' device, since enable_mem_arena is off",
        ),
        (
            parameters(session__use_device_allocator_for_initializers="yes"),
            "parameter 'session.use_device_allocator_for_initializers' of model 'm' is 'yes', expected 0 or 1",
        ),
        (
            parameters(cudnn_conv_algo_search="3"),
            "'cudnn_conv_algo_search' of model 'm' is '3', expected one of 0",
        ),
        (
            parameters(gpu_mem_limit="1GB"),
            "'gpu_mem_limit' of model 'm' is '1GB', expected an integer from 0 to",
        ),
        (
            parameters(arena_extend_strategy="kSame"),
            "'arena_extend_strategy' of model 'm' is 'kSame', expected one of",
        ),
        (parameters(do_copy_in_default_stream="no"), "parameter 'do_copy_in_default_stream' of model 'm' is 'no'"),
        (
            "optimization { graph { level: 3 } }",
            "optimization.graph.level of model 'm' is 3, expected -1 (basic), 0 (all), 1 (extended) or 2 (none)",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    config: str, message: str, add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        backend.load(context(add_sub, config))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"default-max-batch-size": "-4"},
            "'default-max-batch-size' of --backend-config=onnxruntime is '-4'",
        ),
        (
            {"enable-global-threadpool": "2"},
            "'enable-global-threadpool' of --backend-config=onnxruntime is '2'",
        ),
    ],
)
def test_a_bad_backend_option(options: dict[str, str], message: str, add_sub: onnx.ModelProto, context: Any) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        BackendOptions.read(context(add_sub, options=options))
    assert message in str(raised.value)


@pytest.mark.parametrize("devices", ["cpu:0", "gpu:0;cpu:0;gpu:1"])
def test_arena_shrinkage_is_for_each_run(
    devices: str, add_sub: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    """Of the instance's own devices: a session does not run where it is to shrink the arena of another."""
    made: Any = instance(context(add_sub, parameters(memory__enable_memory_arena_shrinkage=devices)))
    assert made._options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"
    run(made)


def test_a_profile_is_written_where_the_operator_says_when_the_model_is_closed(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = tmp_path / "profiles"
    made_context = context(
        add_sub, parameters(enable_profiling="1"), name="a/b", options={"profile-directory": str(profiles)}
    )
    with caplog.at_level(logging.INFO):
        backend.auto_complete(made_context)
        model = backend.load(made_context)
        instance: Any = model.create_instance(InstanceContext("m_0", "CPU"))
    assert f"model 'a/b' version 1 is profiled; when it is unloaded, the profile is in {profiles}/a_b_1_" in caplog.text
    run(instance)
    instance.close()
    model.close()
    (profile,) = profiles.iterdir()
    operators = {event.get("args", {}).get("op_name") for event in json.loads(profile.read_text())}
    assert operators >= {"Add", "Sub"}


def test_a_profile_that_cannot_be_written(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    options = {"profile-directory": str(tmp_path / "file" / "profiles")}
    with pytest.raises(
        UnavailableError, match=r"profile of model 'm' cannot be written to '.*/file/profiles' \(Not a dir"
    ):
        instance(context(add_sub, parameters(enable_profiling="1"), options=options))


def test_without_the_parameter_nothing_is_profiled(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, tmp_path: Path
) -> None:
    profiles = tmp_path / "profiles"
    run(instance(context(add_sub, options={"profile-directory": str(profiles)})))
    assert not profiles.exists()


def test_a_misspelled_parameter_is_pointed_out(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"default_max_batch_size": "8", "backend-directory": "/opt"}
    config = parameters(intra_op_threads_count="2", my_own_note="text")
    with caplog.at_level(logging.WARNING):
        backend.load(context(add_sub, config, options=options))
    assert [record.message for record in caplog.records] == [
        "model 'm' sets parameter 'intra_op_threads_count', which has no effect; did you mean 'intra_op_thread_count'?",
        (
            "--backend-config=onnxruntime sets parameter 'default_max_batch_size', which has no effect; did you mean"
            " 'default-max-batch-size'?"
        ),
    ]


def test_thread_counts_that_global_pools_override_are_pointed_out(
    add_sub: onnx.ModelProto, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made_context = context(add_sub, parameters(intra_op_thread_count="2"), options={"enable-global-threadpool": "1"})
    with caplog.at_level(logging.WARNING):
        warn_of_unused(made_context, made_context.logger)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "model 'm' sets parameter 'intra_op_thread_count', which has no effect"
    ]


@pytest.mark.parametrize(("share", "shared"), [(None, True), ("1", True), ("0", False)])
def test_instances_on_the_cpu_share_a_session_unless_told_otherwise(
    share: str | None, shared: bool, add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    config = parameters(share_session_between_instances=share) if share else ""
    made_context = context(add_sub, config)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    first: Any = model.create_instance(InstanceContext("m_0_0", "CPU"))
    second: Any = model.create_instance(InstanceContext("m_0_1", "CPU"))
    assert (first._session is second._session) is shared
    first.close()
    run(second)
    second.close()
    model.close()


def test_custom_operator_libraries_that_cannot_be_loaded(
    add_sub: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    made_context = context(add_sub, 'model_operations { op_library_filename: "libnone.so" }')
    with pytest.raises(InvalidArgumentError, match=r"unable to load the custom operators 'libnone.so' .* of model 'm'"):
        instance(made_context)
    # A file of the model's folder is found by its name; what is in it is the loader's affair.
    library: Path = made_context.model_path / "libnone.so"
    library.write_bytes(b"not a library")
    with pytest.raises(InvalidArgumentError, match=r"unable to load the custom operators '.*/m/libnone\.so'"):
        instance(made_context)
