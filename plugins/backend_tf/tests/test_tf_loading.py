"""What does not load says why, and what would help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tf_models import MakeContext, MakeInstance, Tensors, parameter, save_double, save_serving, tf, v1
from trivet.backend import InstanceContext
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, TrivetError, UnavailableError
from trivet.testing import model_context
from trivet_backend_tf.backend import TensorFlowBackend
from trivet_backend_tf.runtime import SavedModelMessage

DOUBLE = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
max_batch_size: 8
"""


def refusal(instance: MakeInstance, made: Any) -> TrivetError:
    with pytest.raises(TrivetError) as raised:
        instance(made)
    assert "'m'" in raised.value.message
    assert "\n" not in raised.value.message
    return raised.value


@contextmanager
def edited(folder: Path) -> Iterator[Any]:
    """The graph of a SavedModel, written back with what was changed."""
    file = folder / "saved_model.pb"
    message = SavedModelMessage.FromString(file.read_bytes())
    yield message.meta_graphs[0]
    file.write_bytes(message.SerializeToString())


def test_a_model_that_is_not_there(context: MakeContext, instance: MakeInstance) -> None:
    made = context(lambda path: path.with_name("saved").mkdir(), 'platform: "tensorflow_savedmodel"')
    error = refusal(instance, made)
    assert isinstance(error, UnavailableError)
    assert f"unable to find '{made.version_path}/model.savedmodel' for model instance 'm'" in error.message
    assert "there is saved" in error.message


def test_a_folder_that_is_no_savedmodel(context: MakeContext, instance: MakeInstance) -> None:
    error = refusal(instance, context(lambda path: path.mkdir()))
    assert isinstance(error, UnavailableError)
    assert "saved_model.pb" in error.message


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("tensorflow_graphdef", "is a folder, and platform tensorflow_graphdef needs a file"),
        ("tensorflow_js", "platform tensorflow_js not supported for TensorFlow model 'm'"),
    ],
)
def test_another_platform(platform: str, message: str, context: MakeContext, instance: MakeInstance) -> None:
    made = context(save_double, f'platform: "{platform}" default_model_filename: "model.savedmodel"')
    assert message in refusal(instance, made).message


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("model.savedmodel/saved_model.pb", "tensorflow_savedmodel"),
        ("model.savedmodel/saved_model.pbtxt", "tensorflow_savedmodel"),
        ("model.graphdef", "tensorflow_graphdef"),
    ],
)
def test_a_file_too_large_to_be_a_model_is_not_read(
    name: str, platform: str, context: MakeContext, instance: MakeInstance
) -> None:
    made = context(None, f'platform: "{platform}" {DOUBLE}')
    file = made.version_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as hole:
        hole.truncate(1 << 40)  # takes no space, and more memory than there is if it were read
    assert "has 1,099,511,627,776 bytes, and no model of TensorFlow has more" in refusal(instance, made).message


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x0a\xff\xff\xff\xff\x7f"])
def test_a_damaged_savedmodel(content: bytes, context: MakeContext, instance: MakeInstance) -> None:
    def write(folder: Path) -> None:
        save_double(folder)
        (folder / "saved_model.pb").write_bytes(content)

    assert "it is damaged or incomplete (a Git LFS pointer?)" in refusal(instance, context(write)).message


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a good SavedModel."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_double(folder)
    return (folder / "saved_model.pb").read_bytes()


@given(cut=st.integers(0, 4000), flipped=st.integers(0, 4000), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_savedmodel_that_is_damaged_anywhere_is_read_or_refused(
    cut: int, flipped: int, bit: int, saved: bytes, tmp_path: Path, backend: TensorFlowBackend
) -> None:
    damaged = bytearray(saved)
    damaged[flipped % len(damaged)] ^= 1 << bit
    made = model_context(tmp_path / "m", backend="tensorflow")
    (made.version_path / "saved_model.pb").write_bytes(damaged[: len(damaged) - cut])
    with suppress(TrivetError):
        backend.auto_complete(made)


def test_variables_that_are_cut_short(context: MakeContext, instance: MakeInstance) -> None:
    def write(folder: Path) -> None:
        save_double(folder)
        data = folder / "variables" / "variables.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:2])

    error = refusal(instance, context(write))
    assert isinstance(error, InvalidArgumentError)
    assert error.message.startswith("failed to load model 'm': ")
    assert "the model's files are damaged or incomplete" in error.message


def test_variables_that_are_missing(context: MakeContext, instance: MakeInstance) -> None:
    def write(folder: Path) -> None:
        save_double(folder)
        for file in (folder / "variables").iterdir():
            file.unlink()

    assert "the variables of the SavedModel are missing: there is no '" in refusal(instance, context(write)).message


def test_operators_that_this_tensorflow_does_not_have(context: MakeContext, instance: MakeInstance) -> None:
    def write(folder: Path) -> None:
        save_double(folder)
        with edited(folder) as graph:
            graph.meta_info_def.tensorflow_version = "9.8.7"
            graph.graph_def.node.add(name="new", op="FromTheFuture")

    message = refusal(instance, context(write)).message
    assert "FromTheFuture" in message
    assert f"it was written by TensorFlow 9.8.7, and this is TensorFlow {tf.__version__}: upgrade it" in message


@pytest.mark.slow  # TensorFlow waits 10 s for memory to become free, and tries twice
def test_not_enough_memory(context: MakeContext, instance: MakeInstance) -> None:
    """For 4 PB that its initializer fills."""

    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None, 4])
        ones = tf.fill(v1.placeholder_with_default(tf.constant([1, 1, 1], name="size"), [3]), 1.0)
        filled = v1.get_variable("filled", initializer=ones, validate_shape=False, use_resource=False)
        v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, filled.initializer)
        return {"x": x}, {"y": 2 * x}

    def write(folder: Path) -> None:
        save_serving(folder, build)
        with edited(folder) as graph:
            for node in graph.graph_def.node:
                node.attr.pop("_output_shapes", None)
            (size,) = (node for node in graph.graph_def.node if node.name == "size")
            size.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([2**20, 2**20, 2**10]))

    error = refusal(instance, context(write))
    assert isinstance(error, ResourceExhaustedError)
    assert "OOM when allocating tensor with shape[1048576,1048576,1024]" in error.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DOUBLE.replace('"x"', '"z"'), "unexpected inference input 'z', allowed inputs are: x"),
        (DOUBLE.replace('"y"', '"z"'), "unexpected inference output 'z', allowed outputs are: y"),
        (
            DOUBLE.replace("TYPE_FP32", "TYPE_FP64", 1),
            "configuration expects datatype TYPE_FP64 for input 'x', model provides TYPE_FP32",
        ),
        (
            DOUBLE.replace("[ 4 ]", "[ 5 ]"),
            "tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the model configuration specifies",
        ),
        (DOUBLE.replace("dims: [ 4 ] }", "dims: [ 4 ] optional: true }", 1), "the model needs it"),
        (DOUBLE + 'input { name: "more" data_type: TYPE_FP32 dims: [ 4 ] }', "unexpected inference input 'more'"),
    ],
)
def test_a_configuration_that_is_not_the_models(
    config: str, message: str, context: MakeContext, instance: MakeInstance
) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        instance(context(save_double, config))


def test_an_input_that_is_not_configured_where_nothing_is_completed(context: MakeContext, backend: Any) -> None:
    made = context(
        save_double, 'platform: "tensorflow_savedmodel" output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }'
    )
    model = backend.load(made)
    with pytest.raises(InvalidArgumentError, match=r"model provides 1 \(not configured: x \(float32 \[-1,4\]\)\)"):
        model.create_instance(InstanceContext("m_0_0", "CPU"))
    model.close()


@pytest.mark.parametrize(("built", "fix"), [(False, "is built without CUDA"), (True, "finds no usable GPU")])
def test_a_gpu_that_is_not_there(
    built: bool, fix: str, context: MakeContext, instance: MakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: built)
    with pytest.raises(UnavailableError, match=f"model 'm' needs GPU 0, and TensorFlow .* {fix}; .*KIND_CPU"):
        instance(context(save_double), kind="GPU")


@pytest.mark.parametrize(
    ("accelerators", "message"),
    [
        ('cpu_execution_accelerator { name: "openvino" }', "CPU Execution Accelerator is not supported"),
        ('gpu_execution_accelerator { name: "tensorrt" }', "TensorFlow has no TF-TRT since version 2.18"),
        ('gpu_execution_accelerator { name: "warp" }', "unknown Execution Accelerator 'warp' is requested"),
    ],
)
def test_accelerators_that_are_not_there(
    accelerators: str, message: str, context: MakeContext, instance: MakeInstance
) -> None:
    made = context(save_double, f"optimization {{ execution_accelerators {{ {accelerators} }} }}")
    assert message in refusal(instance, made).message


def test_an_accelerator_for_a_gpu_is_ignored_on_the_cpu_with_a_warning(
    context: MakeContext, instance: MakeInstance, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = 'gpu_execution_accelerator { name: "auto_mixed_precision" }'
    instance(context(save_double, f"optimization {{ execution_accelerators {{ {accelerator} }} }}"))
    assert "GPU Execution Accelerator will be ignored for model instance on CPU" in caplog.text


def test_tensorflow_1_is_not_to_be_had(context: MakeContext, instance: MakeInstance) -> None:
    with pytest.raises(InvalidArgumentError, match="parameter 'version' of --backend-config=tensorflow is '1'"):
        instance(context(save_double, options={"version": "1"}))
    assert instance(context(None, options={"version": "2"}))


def test_what_has_no_effect_is_told(
    context: MakeContext, instance: MakeInstance, caplog: pytest.LogCaptureFixture
) -> None:
    made = context(save_double, parameter("TF_INIT_OPS_FILE", "init.json") + parameter("tf_num_intra_thread", "2"))
    instance(made)
    assert "'TF_INIT_OPS_FILE', which has no effect: it is for GraphDefs" in caplog.text
    assert "did you mean 'TF_NUM_INTRA_THREADS'?" in caplog.text
