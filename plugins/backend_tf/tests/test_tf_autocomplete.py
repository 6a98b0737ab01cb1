"""What a configuration leaves out is filled in from the signature, by Triton's rules."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tf_models import MakeContext, Tensors, parameter, save_serving, tf, v1
from trivet.errors import InvalidArgumentError, TrivetError


def batching() -> tuple[Tensors, Tensors]:
    x, word = v1.placeholder(tf.float32, [None, 4]), v1.placeholder(tf.string, [None])
    return {"x": x, "word": word}, {"y": 2 * x, "length": tf.strings.length(word)}


def fixed() -> tuple[Tensors, Tensors]:
    x = v1.placeholder(tf.float32, [1, 4])
    return {"x": x}, {"y": 2 * x}


@pytest.fixture
def completed(context: MakeContext, backend: Any, tmp_path: Path) -> Any:
    def complete(build: Any, config: str = "", **options: Any) -> Any:
        made = context(lambda folder: save_serving(folder, build), config, **options)
        backend.auto_complete(made)
        return made.config

    return complete


def test_nothing_is_configured(completed: Any) -> None:
    config = completed(batching)
    assert config.platform == "tensorflow_savedmodel"
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    x, word = (next(m for m in config.input if m.name == name) for name in ("x", "word"))
    assert (x.data_type, list(x.dims)) == (11, [4])
    assert (word.data_type, list(word.dims), list(word.reshape.shape)) == (13, [1], [])
    assert word.HasField("reshape")
    assert [(m.name, list(m.dims)) for m in config.output] == [("length", [1]), ("y", [4])]


@pytest.mark.parametrize(("size", "together"), [("16", True), ("1", False)])
def test_the_size_of_a_default_batch_is_the_operators(size: str, together: bool, completed: Any) -> None:
    config = completed(batching, options={"default-max-batch-size": size})
    assert config.max_batch_size == int(size)
    assert config.HasField("dynamic_batching") == together


def test_a_default_batch_of_none_leaves_the_batch_dimension_to_callers(completed: Any) -> None:
    config = completed(batching, options={"default-max-batch-size": "0"})
    assert config.max_batch_size == 0
    assert sorted(list(m.dims) for m in config.input) == [[-1], [-1, 4]]


def test_a_model_of_one_size(completed: Any) -> None:
    config = completed(fixed)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 4]


def test_what_is_there_stays(completed: Any) -> None:
    config = completed(
        batching,
        """
        max_batch_size: 32
        sequence_batching { }
        input { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
        output { name: "y" }
        """,
    )
    assert config.max_batch_size == 32
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 2]
    assert config.input[1].name == "word", "an input that the model needs is added"
    assert [(m.name, m.data_type, list(m.dims)) for m in config.output] == [("y", 11, [4])], "an output is not"


@pytest.mark.parametrize(("dims", "max_batch_size"), [("[ 4 ]", 4), ("[ -1, 4 ]", 0)])
def test_the_dimensions_of_a_tensor_tell_whether_the_model_is_to_batch(
    dims: str, max_batch_size: int, completed: Any
) -> None:
    config = completed(batching, f'output {{ name: "y" data_type: TYPE_FP32 dims: {dims} }}')
    assert config.max_batch_size == max_batch_size
    assert len(next(m for m in config.input if m.name == "x").dims) == (1 if max_batch_size else 2)


def test_a_reshape_counts_as_the_models_dimensions(completed: Any) -> None:
    config = completed(batching, 'input { name: "word" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } }')
    assert config.max_batch_size == 4


def test_dimensions_that_contradict_each_other(completed: Any) -> None:
    config = """
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
    """
    with pytest.raises(
        InvalidArgumentError, match="unable to autofill for 'm', model tensor configurations are contra"
    ):
        completed(batching, config)


def test_a_batch_size_that_the_model_cannot_have(completed: Any) -> None:
    message = "unable to autofill for 'm', configuration specified max-batch 2 but model signature does not support"
    with pytest.raises(InvalidArgumentError, match=message):
        completed(fixed, "max_batch_size: 2")


def unranked() -> tuple[Tensors, Tensors]:
    x = v1.placeholder(tf.float32, None)
    return {"x": x}, {"y": 2 * x}


def complex_output() -> tuple[Tensors, Tensors]:
    x = v1.placeholder(tf.float32, [None])
    return {"x": x}, {"y": 2 * x, "z": tf.complex(x, x)}


def sparse_output() -> tuple[Tensors, Tensors]:
    x = v1.placeholder(tf.float32, [None])
    return {"x": x}, {"y": 2 * x, "z": tf.sparse.from_dense(x)}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (unranked, "the rank of model tensor 'x' is unknown; describe it"),
        (complex_output, "unable to process output 'z', unsupported datatype 'complex64'; name the outputs"),
        (sparse_output, "unable to process output 'z', unsupported datatype 'coo_sparse'; name the outputs"),
    ],
)
def test_tensors_that_cannot_be_described(build: Any, message: str, completed: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        completed(build)


def mean_output() -> tuple[Tensors, Tensors]:
    x = v1.placeholder(tf.float32, [None, 4])
    return {"x": x}, {"y": 2 * x, "mean": tf.reduce_mean(x)}


@pytest.mark.parametrize("build", [unranked, mean_output])
def test_a_model_batches_where_the_configuration_says_so_and_nothing_that_is_served_speaks_against_it(
    build: Any, completed: Any
) -> None:
    config = """
        max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
    """
    assert completed(build, config).max_batch_size == 8


def test_outputs_that_cannot_be_described_need_not_be_served(completed: Any) -> None:
    assert [m.name for m in completed(complex_output, 'output { name: "y" }').output] == ["y"]


def test_tensors_of_any_rank_have_the_configurations(completed: Any) -> None:
    config = """
        max_batch_size: 0
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1, 3 ] }
    """
    assert completed(unranked, config).max_batch_size == 0


# --- parameters


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TF_NUM_INTRA_THREADS", "-1", "an integer from 0 to 4096"),
        ("TF_NUM_INTER_THREADS", "many", "an integer from 0 to 4096"),
        ("TF_USE_PER_SESSION_THREADS", "perhaps", "one of true, on, 1, false, off, 0"),
        ("MAX_SESSION_SHARE_COUNT", "0", "an integer from 1 to 2147483647"),
    ],
)
def test_a_parameter_that_is_not_allowed(name: str, value: str, expected: str, completed: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"parameter '{name}' of model 'm' is '{value}', expected {expected}"
    ):
        completed(fixed, parameter(name, value))


@pytest.mark.parametrize(("name", "value"), [("gpu-memory-fraction", "1.5"), ("allow-soft-placement", "maybe")])
def test_an_option_that_is_not_allowed(name: str, value: str, completed: Any) -> None:
    with pytest.raises(TrivetError, match=f"parameter '{name}' of --backend-config=tensorflow is '{value}'"):
        completed(fixed, options={name: value})


def test_only_what_is_asked_for_is_in_the_sessions_configuration(context: MakeContext) -> None:
    from trivet.backend import InstanceContext
    from trivet_backend_tf.devices import session_config
    from trivet_backend_tf.settings import Settings

    def config(text: str = "", kind: Any = "CPU", **options: str) -> Any:
        settings = Settings.read(context(None, text, options={key.replace("_", "-"): v for key, v in options.items()}))
        return session_config(settings, InstanceContext("m_0_0", kind))

    plain = config()
    assert (plain.allow_soft_placement, dict(plain.device_count)) == (True, {"GPU": 0})
    assert not plain.use_per_session_threads
    assert config(parameter("TF_USE_PER_SESSION_THREADS", "On")).use_per_session_threads
    assert not config(allow_soft_placement="false").allow_soft_placement
    assert config(kind="GPU").gpu_options.allow_growth
    taken = config(kind="GPU", gpu_memory_fraction="0.25").gpu_options
    assert (taken.allow_growth, taken.per_process_gpu_memory_fraction) == (False, 0.25)
    mixed = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "auto_mixed_precision" } } }'
    rewriting = config(mixed, kind="GPU").graph_options.rewrite_options
    assert rewriting.auto_mixed_precision == type(rewriting).ON
    levels = {
        level: config(f"optimization {{ graph {{ level: {level} }} }}").graph_options.optimizer_options.global_jit_level
        for level in (-1, 0, 1, 2)
    }
    assert levels == {-1: -1, 0: 0, 1: 1, 2: 2}


def test_threads_that_the_process_has_once_are_the_first_models(
    context: MakeContext, backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def load(name: str, count: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            backend.load(context(lambda f: f.exists() or save_serving(f, fixed), parameter(name, count))).close()
        return caplog.text

    load("TF_NUM_INTRA_THREADS", "0")
    text = load("TF_NUM_INTRA_THREADS", "7")
    assert "sets TF_NUM_INTRA_THREADS to 7, which has no effect: TensorFlow has one such pool of threads" in text
    assert "--backend-config=tensorflow,TF_NUM_INTRA_THREADS=7" in text
    assert "TF_USE_PER_SESSION_THREADS" in load("TF_NUM_INTER_THREADS", "7")
    assert not load("TF_NUM_INTER_THREADS", "1"), "one is the instance's own thread"
