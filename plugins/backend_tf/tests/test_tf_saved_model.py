"""SavedModels of TensorFlow 1 and 2: what they answer, and which graph and signature of them."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tf_models import (
    MakeContext,
    MakeInstance,
    Tensors,
    parameter,
    run,
    save,
    save_double,
    save_serving,
    save_v1,
    tf,
    v1,
)
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.datatypes import DataType
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, object_array
from trivet.testing import model_context, running_instance
from trivet_backend_tf.backend import TensorFlowBackend


def test_a_model_with_a_variable(context: MakeContext, instance: MakeInstance) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run(instance(context(save_double)), ["y"], x=x)["y"], 2 * x)


def test_a_model_of_tensorflow_1_with_a_variable_and_a_table_of_words_from_a_file(
    context: MakeContext, instance: MakeInstance, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("zero\none\ntwo\n")

    def build() -> tuple[Tensors, Tensors]:
        path = tf.constant(str(words), name="words")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, path)
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        source = tf.lookup.TextFileInitializer(path, tf.string, line, tf.int64, number)
        table = tf.lookup.StaticHashTable(source, -1)
        word = v1.placeholder(tf.string, [None])
        ten = v1.get_variable("ten", initializer=tf.constant(10, tf.int64), use_resource=False)
        return {"word": word}, {"number": table.lookup(word) + ten}

    made = context(lambda folder: save_serving(folder, build))
    words.unlink()  # the model has a copy of its own
    found = run(instance(made), ["number"], word=object_array([b"two", b"one", b"many"], (3,)))
    assert found["number"].tolist() == [12, 11, 9]


# --- values


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with a signature for each datatype, named like it: ``y = x``, copied."""
    folder = tmp_path_factory.mktemp("identity") / "model.savedmodel"

    def build() -> dict[str, tuple[Tensors, Tensors]]:
        signatures: dict[str, tuple[Tensors, Tensors]] = {}
        for datatype in datatypes.ALL:
            x = v1.placeholder(TF_NAMES.get(datatype.name, datatype.numpy.name), [None, None])
            signatures[datatype.name] = {"x": x}, {"y": tf.reshape(x, tf.shape(x))}
        return signatures

    save_v1(folder, build)
    return folder


TF_NAMES = {"BYTES": "string", "BF16": "bfloat16"}


@pytest.fixture(scope="module")
def passing(identity: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """An instance of that model for a datatype."""
    made = model_context(
        tmp_path_factory.mktemp("passing") / "m", parameter("TF_SIGNATURE_DEF", request.param), backend="tensorflow"
    )
    (made.version_path / "model.savedmodel").symlink_to(identity)
    with running_instance(TensorFlowBackend(), made) as running:
        yield running


def of(datatype: DataType) -> Any:
    return pytest.mark.parametrize("passing", [datatype.name], indirect=True)


@pytest.mark.parametrize(
    ("passing", "datatype"),
    [(datatype.name, datatype) for datatype in datatypes.ALL if datatype is not datatypes.BYTES],
    indirect=["passing"],
    ids=repr,
)
def test_numbers_pass_as_they_are(passing: ArrayInstance, datatype: DataType) -> None:
    patterns = np.random.default_rng(0).integers(0, 256, 24 * datatype.itemsize, np.uint8)
    wire = (patterns % 2 if datatype is datatypes.BOOL else patterns).tobytes()
    found = run(passing, ["y"], x=Tensor.from_wire("x", datatype, (4, 6), wire))["y"]
    assert bytes(Tensor.from_numpy("y", found, datatype).wire()) == wire


@of(datatypes.BYTES)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_text_is_any_bytes(passing: ArrayInstance, items: list[bytes]) -> None:
    """Zeros at its end and what is no UTF-8 included; and nothing at all."""
    assert run(passing, ["y"], x=object_array(items, (1, len(items))))["y"].tolist() == [items]


@of(datatypes.BYTES)
def test_text_of_python_models_is_encoded(passing: ArrayInstance) -> None:
    """They may give ``str``, and numpy's own text."""
    for given_text in (np.array([["é", "b"]], object), np.array([["é", "b"]])):
        assert run(passing, ["y"], x=Tensor.from_numpy("x", given_text))["y"].tolist() == [["é".encode(), b"b"]]


@of(datatypes.FP32)
@given(st.lists(st.integers(-1000, 1000), min_size=6, max_size=6))
def test_memory_of_any_layout_is_read_right(passing: ArrayInstance, items: list[int]) -> None:
    x = np.array(items, np.float32).reshape(2, 3)
    unaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3)
    for laid_out in (x, np.asfortranarray(x), x.astype(">f4"), unaligned, np.repeat(x, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(run(passing, ["y"], x=laid_out)["y"], x)


def test_scalars_travel_as_one_element(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x, word = v1.placeholder(tf.float32, []), v1.placeholder(tf.string, [])
        return {"x": x, "word": word}, {"half": x / 2, "shout": word + "!"}

    made = context(lambda folder: save_serving(folder, build))
    answer = run(instance(made), ["half", "shout"], x=np.float32([3]), word=object_array([b"hey"], (1,)))
    assert made.config.max_batch_size == 0
    assert [list(message.dims) for message in made.config.input] == [[1], [1]]
    assert (answer["half"].tolist(), answer["shout"].tolist()) == ([1.5], [b"hey!"])


def test_only_what_is_asked_for_is_computed(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None])
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="x must be positive")]):
            root = tf.sqrt(x)
        return {"x": x}, {"root": root, "twice": x * 2, "given": x}

    made = instance(context(lambda folder: save_serving(folder, build)))
    x = np.float32([-1])
    answer = run(made, ["twice", "given"], x=x)
    assert (answer["twice"].tolist(), answer["given"].tolist()) == ([-2], [-1])
    with pytest.raises(InternalError, match=r"x must be positive.*model 'm' version 1"):
        run(made, ["root"], x=x)


def test_an_output_that_is_an_input_may_be_all_that_is_asked_for(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None])
        return {"x": x}, {"twice": x * 2, "given": x, "again": x}

    made = instance(context(lambda folder: save_serving(folder, build)))
    answer = run(made, ["given", "again"], x=np.float32([3]))
    assert {name: value.tolist() for name, value in answer.items()} == {"given": [3], "again": [3]}


def test_more_sets_of_outputs_than_are_kept_compiled(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None])
        return {"x": x}, {f"y{n}": x * float(n) for n in range(7)}

    made = instance(context(lambda folder: save_serving(folder, build)))
    for subset in range(1, 2**7):
        names = [f"y{n}" for n in range(7) if subset >> n & 1]
        expected = {name: [3.0 * int(name[1:])] for name in names}
        for ordered in (names, names[::-1]):
            answer = run(made, ordered, x=np.float32([3]))
            assert {name: value.tolist() for name, value in answer.items()} == expected


# --- which graph and which signature


def two_signatures() -> dict[str, tuple[Tensors, Tensors]]:
    x = v1.placeholder(tf.float32, [None, 1])
    return {"twice": ({"a": x}, {"b": x * 2}), "thrice": ({"a": x}, {"b": x * 3})}


def test_a_signature_is_chosen_by_name(context: MakeContext, instance: MakeInstance) -> None:
    made = context(lambda folder: save_v1(folder, two_signatures), parameter("TF_SIGNATURE_DEF", "thrice"))
    assert run(instance(made), ["b"], a=np.float32([[2]]))["b"].tolist() == [[6]]


def test_without_the_usual_name_the_first_signature_serves_with_a_warning(
    context: MakeContext, instance: MakeInstance, caplog: pytest.LogCaptureFixture
) -> None:
    """As in Triton."""
    made = context(lambda folder: save_v1(folder, two_signatures))
    with caplog.at_level(logging.WARNING):
        answer = run(instance(made), ["b"], a=np.float32([[2]]))
    assert answer["b"].tolist() == [[6]]
    assert "using signature 'thrice' of thrice, twice" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TF_SIGNATURE_DEF", "once", r"expected 'once' signature; the SavedModel has thrice, twice"),
        ("TF_GRAPH_TAG", "train", r"expected 'train' tag; the SavedModel has graphs with 'serve'"),
        ("TF_GRAPH_TAG", "serve,gpu", r"expected 'gpu,serve' tag"),
    ],
)
def test_a_signature_or_tag_that_is_not_there_is_told_with_those_that_are(
    key: str, value: str, message: str, context: MakeContext, instance: MakeInstance
) -> None:
    made = context(lambda folder: save_v1(folder, two_signatures), parameter(key, value))
    with pytest.raises(InvalidArgumentError, match=f"unable to load model 'm', {message}"):
        instance(made)


def test_a_graph_is_chosen_by_all_of_its_tags(context: MakeContext, instance: MakeInstance) -> None:
    made = context(
        lambda folder: save_v1(folder, two_signatures, tags=("serve", "gpu")),
        parameter("TF_GRAPH_TAG", "gpu,serve") + parameter("TF_SIGNATURE_DEF", "twice"),
    )
    assert run(instance(made), ["b"], a=np.float32([[2]]))["b"].tolist() == [[4]]


# --- where it lies


def test_the_version_may_be_the_savedmodel_as_in_tensorflow_serving(
    context: MakeContext, instance: MakeInstance
) -> None:
    made = context(lambda folder: save_double(folder.parent))
    assert run(instance(made), ["y"], x=np.float32([[1, 2, 3, 4]]))["y"].tolist() == [[2, 4, 6, 8]]


def test_a_savedmodel_in_text_form(context: MakeContext, instance: MakeInstance) -> None:
    def write(folder: Path) -> None:
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        save_double(folder)
        binary = folder / "saved_model.pb"
        message = SavedModel.FromString(binary.read_bytes())
        binary.with_suffix(".pbtxt").write_text(text_format.MessageToString(message))
        binary.unlink()

    assert run(instance(context(write)), ["y"], x=np.float32([[1, 2, 3, 4]]))["y"].tolist() == [[2, 4, 6, 8]]


def test_another_name_by_default_model_filename(context: MakeContext, instance: MakeInstance) -> None:
    made = context(save_double, 'default_model_filename: "double"', name="double")
    assert run(instance(made), ["y"], x=np.float32([[1, 2, 3, 4]]))["y"].tolist() == [[2, 4, 6, 8]]


def test_functions_that_call_each_other_and_loop(context: MakeContext, instance: MakeInstance) -> None:
    class Collatz(tf.Module):
        @tf.function
        def steps(self, n: Any) -> Any:
            count = tf.constant(0, tf.int64)
            while n > 1:
                n = tf.where(n % 2 == 0, n // 2, 3 * n + 1)
                count += 1
            return count

        def serve(self, n: Any) -> Tensors:
            return {"steps": tf.map_fn(self.steps, n)}

    made = context(lambda folder: save(folder, Collatz(), {"n": (tf.int64, [None])}))
    assert run(instance(made), ["steps"], n=np.array([1, 6, 27]))["steps"].tolist() == [0, 8, 111]


def test_an_input_with_a_default_may_be_left_out(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None])
        scale = v1.placeholder_with_default(tf.constant([10.0]), [None])
        return {"x": x, "scale": scale}, {"y": x * scale}

    config = 'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }'
    optional = config + 'input { name: "scale" data_type: TYPE_FP32 dims: [ -1 ] optional: true }'
    x, scale = np.float32([1, 2]), np.float32([3])
    unused = instance(context(lambda folder: save_serving(folder, build), config))
    assert run(unused, ["y"], x=x)["y"].tolist() == [10, 20]
    used = instance(context(None, optional))
    assert run(used, ["y"], x=x)["y"].tolist() == [10, 20]
    assert run(used, ["y"], x=x, scale=scale)["y"].tolist() == [3, 6]


def test_code_of_python_in_the_graph_is_not_in_the_file(context: MakeContext, instance: MakeInstance) -> None:
    def build() -> tuple[Tensors, Tensors]:
        x = v1.placeholder(tf.float32, [None])
        return {"x": x}, {"y": v1.numpy_function(lambda value: value, [x], tf.float32)}

    config = """input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }"""
    made = instance(context(lambda folder: save_serving(folder, build), config))
    gc.collect()  # the function was the graph's
    with pytest.raises(
        InternalError, match=r"no file holds: save the model without it \(model 'm' version 1\)$"
    ) as raised:
        run(made, ["y"], x=np.float32([1]))
    assert "Traceback" not in str(raised.value)
