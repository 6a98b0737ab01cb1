"""Sequences, maps and optionals: values of ONNX that hold tensors, and the tensors that requests have for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, TypeProto, helper
from trivet.backend import ArrayInstance
from trivet.errors import InternalError, InvalidArgumentError, UnimplementedError
from trivet.tensor import Tensor, object_array
from trivet_backend_onnx.backend import OnnxBackend

Instance = Callable[..., ArrayInstance]

FLOAT, INT64, STRING, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL


def tensor(kind: int, *shape: int | str) -> TypeProto:
    return helper.make_tensor_type_proto(kind, shape)


def map_of(key: int, value: int) -> TypeProto:
    return TypeProto(map_type=TypeProto.Map(key_type=key, value_type=helper.make_tensor_type_proto(value, [])))


sequence, optional = helper.make_sequence_type_proto, helper.make_optional_type_proto
ROW_PAIRS = tensor(FLOAT, "n", 2)


def model(nodes: list[onnx.NodeProto], inputs: dict[str, TypeProto], outputs: dict[str, TypeProto]) -> onnx.ModelProto:
    def described(values: dict[str, TypeProto]) -> list[onnx.ValueInfoProto]:
        return [helper.make_value_info(name, kind) for name, kind in values.items()]

    graph = helper.make_graph(nodes, "graph", described(inputs), described(outputs))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def classifier(labels: list[str] | list[int], name: str = "scores") -> onnx.ModelProto:
    """What scikit-learn's classifiers are exported to end with: a map from class to score for each row."""
    key = STRING if isinstance(labels[0], str) else INT64
    attribute = {"classlabels_strings" if key == STRING else "classlabels_int64s": labels}
    zip_map = helper.make_node("ZipMap", ["x"], [name], domain="ai.onnx.ml", **attribute)
    return model([zip_map], {"x": tensor(FLOAT, "n", len(labels))}, {name: sequence(map_of(key, FLOAT))})


def splits(outputs: int = FLOAT, **attributes: int) -> onnx.ModelProto:
    """Rows of ``x`` as a sequence ``parts``; with ``lengths``, of that many rows each."""
    lengths = {"lengths": tensor(INT64, "m")} if attributes.pop("lengths", 0) else {}
    split = helper.make_node("SplitToSequence", ["x", *lengths], ["parts"], axis=0, **attributes)
    return model([split], {"x": tensor(outputs, "n", 2), **lengths}, {"parts": sequence(tensor(outputs))})


def run(instance: ArrayInstance, *outputs: str, **inputs: Any) -> list[Any]:
    tensors = {name: Tensor.from_numpy(name, np.asarray(array)) for name, array in inputs.items()}
    results = instance.execute(tensors, outputs)
    assert list(results) == list(outputs)
    return [None if value is None else np.asarray(value).tolist() for value in results.values()]


PARTS = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "parts" data_type: TYPE_FP32 dims: [ -1, -1, 2 ] }
"""


class TestMaps:
    @pytest.mark.parametrize(
        ("labels", "keys"), [(["dog", "cat"], [[b"cat", b"dog"]] * 2), ([7, -1], [[-1, 7]] * 2)], ids=["text", "number"]
    )
    def test_a_map_for_each_row_is_a_tensor_of_values_and_one_of_keys(
        self, labels: Any, keys: Any, context: Any, instance: Instance
    ) -> None:
        made_context = context(classifier(labels))
        made = instance(made_context)
        values = np.array([[0.25, 0.75], [1, 0]], np.float32)
        assert run(made, "scores", "scores.keys", x=values) == [[[0.75, 0.25], [0, 1]], keys]
        described = {output.name: list(output.dims) for output in made_context.config.output}
        assert described == {"scores": [-1], "scores.keys": [-1]}
        assert made_context.config.max_batch_size == 4  # each row has a map

    def test_either_can_be_asked_for_alone(self, context: Any, instance: Instance) -> None:
        made = instance(context(classifier(["a", "b"])))
        assert run(made, "scores.keys", x=np.ones((1, 2), np.float32)) == [[[b"a", b"b"]]]
        assert run(made, "scores", x=np.ones((1, 2), np.float32)) == [[[1, 1]]]

    def test_no_rows(self, context: Any, instance: Instance) -> None:
        made = instance(context(classifier(["a", "b"])))
        result = made.execute({"x": Tensor.from_numpy("x", np.ones((0, 2), np.float32))}, ["scores", "scores.keys"])
        assert [np.asarray(value).shape for value in result.values()] == [(0, 0), (0, 0)]

    def test_a_configuration_can_say_how_many_keys_there_are(self, context: Any, instance: Instance) -> None:
        config = """
            max_batch_size: 8
            input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
            output { name: "scores" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }
        """
        assert run(instance(context(classifier(["a", "b"]), config)), "scores", x=np.ones((1, 2), np.float32)) == [
            [[1, 1]]
        ]

    def test_an_input_that_is_a_map_is_refused(self, context: Any, instance: Instance) -> None:
        vectorizer = helper.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a"])
        counts = model([vectorizer], {"x": map_of(STRING, FLOAT)}, {"y": tensor(FLOAT, "n", 1)})
        with pytest.raises(InvalidArgumentError, match="Unsupported ONNX Type 'ONNX_TYPE_MAP' for I/O 'x'"):
            instance(context(counts))
        config = """
            input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
            output { name: "y" data_type: TYPE_FP32 dims: [ -1, 1 ] }
        """
        with pytest.raises(InvalidArgumentError, match=r"unsupported type map\(string,tensor\(float\)\) for input 'x'"):
            instance(context(counts, config))


class TestSequences:
    def test_elements_of_one_shape_are_stacked(self, context: Any, instance: Instance) -> None:
        made = instance(context(splits(), PARTS))
        assert run(made, "parts", x=np.array([[1, 2], [3, 4]], np.float32)) == [[[[1, 2]], [[3, 4]]]]

    def test_a_sequence_of_nothing(self, context: Any, instance: Instance) -> None:
        made = instance(context(splits(), PARTS))
        (parts,) = made.execute({"x": Tensor.from_numpy("x", np.ones((0, 2), np.float32))}, ["parts"]).values()
        assert np.asarray(parts).shape == (0, 0, 2)
        assert np.asarray(parts).dtype == np.float32

    def test_rows_of_a_batch_can_be_a_sequence(self, context: Any, instance: Instance) -> None:
        config = """
            max_batch_size: 4
            input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
            output { name: "parts" data_type: TYPE_FP32 dims: [ 2 ] }
        """
        made = instance(context(splits(keepdims=0), config))
        assert run(made, "parts", x=np.array([[1, 2], [3, 4]], np.float32)) == [[[1, 2], [3, 4]]]

    def test_text(self, context: Any, instance: Instance) -> None:
        config = PARTS.replace("FP32", "STRING")
        made = instance(context(splits(STRING), config))
        assert run(made, "parts", x=object_array([b"a", "ü".encode()], (1, 2))) == [[[[b"a", "ü".encode()]]]]

    def test_elements_of_different_shapes_cost_their_request(self, context: Any, instance: Instance) -> None:
        config = PARTS + 'input { name: "lengths" data_type: TYPE_INT64 dims: [ -1 ] }'
        made = instance(context(splits(lengths=1), config))
        x = np.arange(6, dtype=np.float32).reshape(3, 2)
        with pytest.raises(
            InternalError, match=r"'parts' is a sequence .*different shapes \(\[1, 2\], \[2, 2\]\).*pad"
        ):
            run(made, "parts", x=x, lengths=[1, 2])
        assert run(made, "parts", x=x, lengths=[3]) == [[x.tolist()]]

    @pytest.mark.parametrize(
        ("elements", "expected"), [(np.ones((3, 4, 2), np.float32), 3), (np.ones(5, np.float32), 5), ([], 0)]
    )
    def test_an_input_that_is_a_sequence_takes_rows(
        self, elements: Any, expected: int, context: Any, instance: Instance
    ) -> None:
        shape = [-1] * np.ndim(elements)
        config = f"""
            input {{ name: "x" data_type: TYPE_FP32 dims: {shape} }}
            output {{ name: "y" data_type: TYPE_INT64 dims: [ 1 ] }}
        """
        length = helper.make_node("SequenceLength", ["x"], ["y"])
        counting = model([length], {"x": sequence(tensor(FLOAT))}, {"y": tensor(INT64)})
        assert run(instance(context(counting, config)), "y", x=np.asarray(elements, np.float32)) == [[expected]]

    def test_a_configuration_has_to_say_the_dims(self, context: Any, instance: Instance) -> None:
        with pytest.raises(
            InvalidArgumentError, match=r"'ONNX_TYPE_SEQUENCE' for I/O 'parts'.* name the inputs and outputs in config"
        ):
            instance(context(splits()))

    def test_beside_bfloat16_a_sequence_is_refused(self, context: Any, instance: Instance) -> None:
        split = helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0)
        cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
        outputs = {"parts": sequence(tensor(FLOAT)), "y": tensor(TensorProto.BFLOAT16, "n", 2)}
        config = PARTS + 'output { name: "y" data_type: TYPE_BF16 dims: [ -1, 2 ] }'
        with pytest.raises(UnimplementedError, match=r"TYPE_BF16 tensors with or in seq\(tensor\(float\)\)"):
            instance(context(model([split, cast], {"x": ROW_PAIRS}, outputs), config))


def sometimes() -> onnx.ModelProto:
    """``y`` is ``x`` where ``wanted``, and else nothing."""
    given = helper.make_node("Optional", ["x"], ["some"])
    nothing = helper.make_node("Optional", [], ["none"], type=ROW_PAIRS)
    branch = helper.make_node(
        "If",
        ["wanted"],
        ["y"],
        then_branch=helper.make_graph([given], "then", [], [helper.make_value_info("some", optional(ROW_PAIRS))]),
        else_branch=helper.make_graph([nothing], "else", [], [helper.make_value_info("none", optional(ROW_PAIRS))]),
    )
    return model([branch], {"x": ROW_PAIRS, "wanted": tensor(BOOL)}, {"y": optional(ROW_PAIRS)})


class TestOptionals:
    def test_an_output_that_is_not_there_is_none(self, context: Any, instance: Instance) -> None:
        made = instance(context(sometimes()))
        x = np.ones((1, 2), np.float32)
        assert run(made, "y", x=x, wanted=[True]) == [[[1, 1]]]
        assert run(made, "y", x=x, wanted=[False]) == [None]

    @pytest.mark.parametrize("kind", [optional(ROW_PAIRS), optional(sequence(ROW_PAIRS))], ids=["tensor", "sequence"])
    def test_an_input_may_be_left_out(self, kind: TypeProto, context: Any, instance: Instance) -> None:
        has = helper.make_node("OptionalHasElement", ["x"], ["y"])
        config = """
            input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] optional: true }
            output { name: "y" data_type: TYPE_BOOL dims: [ 1 ] }
        """
        made = instance(context(model([has], {"x": kind}, {"y": tensor(BOOL)}), config))
        assert run(made, "y") == [[False]]
        assert run(made, "y", x=np.ones((1, 2), np.float32)) == [[True]]

    def test_a_completed_configuration_says_what_is_optional(self, context: Any, backend: OnnxBackend) -> None:
        has = helper.make_node("OptionalHasElement", ["x"], ["y"])
        made_context = context(model([has], {"x": optional(ROW_PAIRS)}, {"y": tensor(BOOL, "n")}))
        backend.auto_complete(made_context)
        (described,) = made_context.config.input
        assert (described.name, described.optional, list(described.dims)) == ("x", True, [-1, 2])
        assert made_context.config.max_batch_size == 0  # requests of a batch must give the same inputs

    def test_a_configuration_may_require_it_all_the_same(self, context: Any, instance: Instance) -> None:
        has = helper.make_node("OptionalHasElement", ["x"], ["y"])
        config = """
            input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }
            output { name: "y" data_type: TYPE_BOOL dims: [ 1 ] }
        """
        made = instance(context(model([has], {"x": optional(ROW_PAIRS)}, {"y": tensor(BOOL)}), config))
        assert run(made, "y", x=np.ones((1, 2), np.float32)) == [[True]]
