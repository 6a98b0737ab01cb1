"""GraphDefs: tensors go by their names in the graph, and the configuration describes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tf_models import MakeContext, MakeInstance, graphdef, parameter, run, tf, v1
from trivet.errors import InvalidArgumentError, UnavailableError

CONFIG = """
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 2 ] }
input { name: "b" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "sum" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "parts:1" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def add() -> None:
    # As often, drawn for a batch of one, which TensorFlow does not mind.
    a, b = v1.placeholder(tf.float32, [1, 2], "a"), v1.placeholder(tf.float32, None, "b")
    total = tf.add(a, b, "sum")
    tf.split(total, 2, axis=1, name="parts")


def test_tensors_go_by_their_names_in_the_graph(context: MakeContext, instance: MakeInstance) -> None:
    a, b = np.float32([[1, 2], [3, 4]]), np.float32([[10, 20], [30, 40]])
    made = context(graphdef(add), CONFIG)
    answer = run(instance(made), ["sum", "parts:1"], a=a, b=b)
    assert answer["sum"].tolist() == (a + b).tolist()
    assert answer["parts:1"].tolist() == [[22], [44]]
    assert made.config.platform == "tensorflow_graphdef"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", r"a GraphDef has no signature, .* placeholders are a \(float32 \[1,2\]\), b \(float32 of any shape\)"),
        (CONFIG.replace('"a"', '"sum"'), "unexpected inference input 'sum', allowed inputs are: a, b"),
        (
            CONFIG.replace('"parts:1"', '"parts:2"'),
            "unexpected inference output 'parts:2', allowed outputs are: .*parts",
        ),
        (CONFIG.replace('"sum"', '"total"'), "unexpected inference output 'total'"),
        (
            CONFIG.replace("TYPE_FP32", "TYPE_INT8", 1),
            "expects datatype TYPE_INT8 for input 'a', model provides TYPE_FP32",
        ),
        (
            CONFIG.replace('input { name: "b" data_type: TYPE_FP32 dims: [ 2 ] }', ""),
            r"configuration expects 1 inputs, and its outputs need more \(not configured: b \(float32 of any shape\)\)",
        ),
    ],
)
def test_a_configuration_that_is_not_the_graphs(
    config: str, message: str, context: MakeContext, instance: MakeInstance
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context(graphdef(add), config))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has an empty network"), (b"\x0a\xff\xff\xff\xff\x7f", "'model.graphdef' is no GraphDef; it is damaged")],
)
def test_a_damaged_file(content: bytes, message: str, context: MakeContext, instance: MakeInstance) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context(content, CONFIG))


def test_a_file_that_is_not_there(context: MakeContext, instance: MakeInstance) -> None:
    with pytest.raises(UnavailableError, match=r"unable to find '.*/m/1/model.graphdef' for model instance 'm'"):
        instance(context(None, 'platform: "tensorflow_graphdef"' + CONFIG))


# --- initializers

COUNTER = """
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def scale() -> None:
    x = v1.placeholder(tf.float32, [1], "x")
    factor = v1.get_variable("factor", initializer=tf.constant(3.0))
    tf.multiply(x, factor, "y")
    v1.variables_initializer([factor], "init")


@pytest.mark.parametrize("folder", ["version_path", "model_path"])
def test_variables_are_initialized_by_the_operators_of_a_file(
    folder: str, context: MakeContext, instance: MakeInstance
) -> None:
    made = context(graphdef(scale), COUNTER + parameter("TF_INIT_OPS_FILE", "init_ops.json"))
    (getattr(made, folder) / "init_ops.json").write_text(json.dumps({"init_ops": ["init"]}))
    assert run(instance(made), ["y"], x=np.float32([2]))["y"].tolist() == [6]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.json", "", "expected a file in the version's folder or the model's"),
        ("../../outside.json", '{"init_ops": []}', "expected a file in the version's folder or the model's"),
        ("init.json", "[]", "the file is not of the form"),
        ("init.json", '{"init_ops": "init"}', "the file is not of the form"),
        ("init.json", "[" * 100_000, "the file is not of the form"),
        ("init.json", '{"init_ops": ["start"]}', "start"),
    ],
)
def test_a_file_of_initializers_that_is_wrong(
    name: str, content: str, message: str, context: MakeContext, instance: MakeInstance
) -> None:
    made = context(graphdef(scale), COUNTER + parameter("TF_INIT_OPS_FILE", name))
    if content:
        (made.version_path / name).write_text(content)
    with pytest.raises(InvalidArgumentError, match=message):
        instance(made)


def test_what_is_for_savedmodels_is_told(
    context: MakeContext, instance: MakeInstance, caplog: pytest.LogCaptureFixture
) -> None:
    instance(context(graphdef(add), CONFIG + parameter("TF_SIGNATURE_DEF", "x")))
    assert "'TF_SIGNATURE_DEF', which has no effect: it is for SavedModels" in caplog.text


def test_device_names_in_the_graph_do_not_matter(context: MakeContext, instance: MakeInstance) -> None:
    """It was drawn on a machine with GPUs."""

    def on_gpu() -> None:
        with tf.device("/job:worker/task:7/gpu:3"):
            add()

    made = context(graphdef(on_gpu), CONFIG, options={"allow-soft-placement": "false"})
    row: Any = np.float32([[1, 2]])
    assert run(instance(made), ["sum"], a=row, b=row)["sum"].tolist() == [[2, 4]]
