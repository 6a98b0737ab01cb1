"""TorchScript: names, batches, text, Python numbers, results; Triton's conventions."""

# Annotations are read by TorchScript, which does not know those of a string.

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, object_array

Instance = Callable[..., ArrayInstance]


def script(module: torch.nn.Module) -> Callable[[Any], None]:
    return lambda path: torch.jit.script(module.eval()).save(str(path))


def run(made: ArrayInstance, outputs: list[str], **inputs: Any) -> Any:
    tensors = {
        name: value if isinstance(value, Tensor) else Tensor.from_numpy(name, value) for name, value in inputs.items()
    }
    return made.execute(tensors, outputs)


class AddSub(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


ADD_SUB = """
max_batch_size: 8
input [ {{ name: "{0}" data_type: TYPE_FP32 dims: [ 4 ] }}, {{ name: "{1}" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "{2}" data_type: TYPE_FP32 dims: [ 4 ] }}, {{ name: "{3}" data_type: TYPE_FP32 dims: [ 4 ] }} ]
"""


@pytest.mark.parametrize(
    ("names", "swapped"),
    [
        (("a", "b", "sum", "difference"), False),
        (("b", "a", "sum", "difference"), True),
        (("INPUT__0", "INPUT__1", "OUTPUT__0", "OUTPUT__1"), False),
        (("INPUT__1", "INPUT__0", "OUTPUT__0", "OUTPUT__1"), True),
        (("first", "second", "sum", "difference"), False),
        (("a", "b", "OUTPUT__1", "OUTPUT__0"), "outputs"),
    ],
)
def test_naming_conventions(names: tuple[str, ...], swapped: Any, context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(AddSub())}, ADD_SUB.format(*names)))
    x, y = np.full((2, 4), 5, np.float32), np.full((2, 4), 3, np.float32)
    results = run(made, list(names[2:]), **{names[0]: x, names[1]: y})
    expected = {False: (8, 2), True: (8, -2), "outputs": (2, 8)}[swapped]
    assert tuple(results[name][0, 0] for name in names[2:]) == expected


def test_wrong_count_of_inputs(context: Any, instance: Instance) -> None:
    config = """
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "s" data_type: TYPE_FP32 dims: [ 4 ] }"""
    expected = r"configuration expects 1 inputs, model provides 2 \(a \(tensor\), b \(tensor\)\)"
    with pytest.raises(InvalidArgumentError, match=f"unable to load model 'm', {expected}"):
        instance(context({"model.pt": script(AddSub())}, config))


def test_an_output_that_is_not_there(context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=r"output index which doesn't exist. This model has 2 outputs"):
        instance(context({"model.pt": script(AddSub())}, ADD_SUB.format("a", "b", "OUTPUT__0", "OUTPUT__2")))


def test_without_a_configuration_the_message_says_what_to_describe(context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no datatypes and shapes.*takes a \(tensor\), b .*OUTPUT__1"):
        instance(context({"model.pt": script(AddSub())}))


class Named(torch.nn.Module):
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["x"] * inputs["y"]


def test_a_dictionary_of_inputs(context: Any, instance: Instance) -> None:
    config = ADD_SUB.format("x", "y", "OUTPUT__0", "again").replace(', { name: "again"', "] #")
    made = instance(context({"model.pt": script(Named())}, config))
    x = np.full((1, 4), 3, np.float32)
    np.testing.assert_array_equal(run(made, ["OUTPUT__0"], x=x, y=x)["OUTPUT__0"], x * 3)


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, by: int, twice: bool = False) -> torch.Tensor:
        return x * by * (2 if twice else 1)


SCALED = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "by" data_type: TYPE_INT64 dims: [ 1 ] } ]
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


def test_a_python_number_and_a_default(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Scaled())}, SCALED))
    x = np.ones((3, 2), np.float32)
    assert run(made, ["y"], x=x, by=np.full((3, 1), 4))["y"].tolist() == [[4, 4]] * 3


def test_requests_of_a_batch_may_differ_in_a_python_number(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Scaled())}, SCALED))
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    by = np.array([[2], [5], [2], [7]])
    np.testing.assert_array_equal(run(made, ["y"], x=x, by=by)["y"], x * by)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_python_number_is_the_callers_fault(value: float, context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Scaled())}, SCALED.replace("INT64", "FP32")))
    with pytest.raises(InvalidArgumentError, match=f"input 'by' is {value}, expected a value for int"):
        run(made, ["y"], x=np.ones((1, 2), np.float32), by=np.full((1, 1), value, np.float32))


def test_a_python_number_is_one_for_each_row(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Scaled())}, SCALED.replace("INT64 dims: [ 1 ]", "INT64 dims: [ 2 ]")))
    with pytest.raises(InvalidArgumentError, match=r"input 'by' has shape \[2, 2\], expected one int for each element"):
        run(made, ["y"], x=np.ones((2, 2), np.float32), by=np.array([[1, 2], [3, 4]]))


@pytest.mark.parametrize("datatype", ["TYPE_INT32", "TYPE_BF16"])
def test_a_python_number_that_the_output_would_change(datatype: str, context: Any, instance: Instance) -> None:
    code = "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return 1.5\n"
    config = f"""input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
        output {{ name: "y" data_type: {datatype} dims: [ 1 ] }}"""
    made = instance(context({"model.py": code}, config))
    with pytest.raises(InternalError, match=r"output 'y' is the Python number 1\.5, which is not made"):
        run(made, ["y"], x=np.ones(1, np.float32))


class Shout(torch.nn.Module):
    def forward(self, texts: list[str], x: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        return [text.upper() for text in texts], x


TEXT = """
max_batch_size: 4
input [ { name: "texts" data_type: TYPE_STRING dims: [ 1 ] }, { name: "x" data_type: TYPE_BF16 dims: [ 2 ] } ]
output [ { name: "OUT__0" data_type: TYPE_STRING dims: [ 1 ] }, { name: "OUT__1" data_type: TYPE_BF16 dims: [ 2 ] } ]
"""


def test_text_and_bfloat16(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Shout())}, TEXT))
    numbers = np.array([[0.5, 2], [3, 4]], ml_dtypes.bfloat16)
    x = Tensor.from_wire("x", datatypes.BF16, (2, 2), numbers.tobytes())
    results = run(made, ["OUT__0", "OUT__1"], texts=object_array(["äx".encode(), b"b"], (2, 1)), x=x)
    assert results["OUT__0"].tolist() == [["äX".encode()], [b"B"]]
    assert results["OUT__1"].tobytes() == numbers.tobytes()


def test_bytes_that_are_no_text(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Shout())}, TEXT))
    x = Tensor.from_wire("x", datatypes.BF16, (1, 2), bytes(4))
    with pytest.raises(InvalidArgumentError, match="element 0 of input 'texts' is not valid UTF-8"):
        run(made, ["OUT__0"], texts=object_array([b"\xff"], (1, 1)), x=x)


def test_text_of_no_elements(context: Any, instance: Instance) -> None:
    class Words(torch.nn.Module):
        def forward(self, texts: list[str]) -> list[str]:
            return [text.upper() for text in texts]

    config = """input { name: "texts" data_type: TYPE_STRING dims: [ -1 ] }
        output { name: "OUT__0" data_type: TYPE_STRING dims: [ -1 ] }"""
    made = instance(context({"model.pt": script(Words())}, config))
    assert run(made, ["OUT__0"], texts=object_array([], (0,)))["OUT__0"].shape == (0,)


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("datatype", [d for d in datatypes.ALL if d is not datatypes.BYTES], ids=repr)
def test_every_datatype(datatype: datatypes.DataType, context: Any, instance: Instance) -> None:
    config = f"""max_batch_size: 4 input {{ name: "x" data_type: {datatype.config_name} dims: [ 3 ] }}
        output {{ name: "y" data_type: {datatype.config_name} dims: [ 3 ] }}"""
    made = instance(context({"model.pt": script(Identity())}, config))
    wire = bytes([1, 0] * (3 * datatype.itemsize)) if datatype is not datatypes.BOOL else bytes([1, 0] * 3)
    tensor = Tensor.from_wire("x", datatype, (2, 3), wire)
    result = run(made, ["y"], x=tensor)["y"]
    assert result.shape == (2, 3)
    assert result.dtype == datatype.numpy
    assert result.tobytes() == wire


class InPlace(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1)


def test_a_network_that_works_in_place_changes_no_request(context: Any, instance: Instance) -> None:
    config = """max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }"""
    made = instance(context({"model.pt": script(InPlace())}, config))
    wire = np.zeros(1, np.float32).tobytes()
    assert run(made, ["y"], x=Tensor.from_wire("x", datatypes.FP32, (1, 1), wire))["y"].tolist() == [[1]]
    assert wire == bytes(4)


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += x.sum()
        return self.count

    @torch.jit.export
    def reset(self) -> None:
        self.count.zero_()


COUNTER = """
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def test_results_in_the_networks_own_memory_are_copied(context: Any, instance: Instance) -> None:
    made = instance(context({"model.pt": script(Counter())}, COUNTER))
    one = np.ones(1, np.float32)
    first, second = (run(made, ["y"], x=one)["y"] for _ in range(2))
    assert (first.tolist(), second.tolist()) == ([1], [2])


@pytest.mark.parametrize("result", ["self.last", "self.past[0]", "self.last[:1]", "(self.last, self.last)"])
def test_results_that_the_network_keeps_are_copied(result: str, context: Any, instance: Instance) -> None:
    code = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.zeros(1)
        self.past = [self.last]

    def forward(self, x):
        self.last += x
        return {result}
"""
    made = instance(context({"model.py": code}, COUNTER))
    one = np.ones(1, np.float32)
    first, second = (run(made, ["y"], x=one)["y"] for _ in range(2))
    assert (first.tolist(), second.tolist()) == ([1], [2])


def test_a_result_that_the_network_lets_go_is_not_copied(context: Any, instance: Instance) -> None:
    code = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        made = x + 1
        Net.where = made.data_ptr()
        return made
"""
    made = instance(context({"model.py": code}, COUNTER))
    y = run(made, ["y"], x=np.ones(1, np.float32))["y"]
    assert y.ctypes.data == made._network.module.where  # type: ignore[attr-defined]


def test_instances_have_a_state_of_their_own_unless_they_share(backend: Any, context: Any) -> None:
    from trivet.backend import InstanceContext

    one = np.ones(1, np.float32)
    for parameter, expected in (("", [1, 1]), ("ENABLE_WEIGHT_SHARING", [1, 2])):
        text = f'parameters {{ key: "{parameter}" value {{ string_value: "true" }} }}' if parameter else ""
        model = backend.load(context({"model.pt": script(Counter())}, COUNTER + text))
        made = [model.create_instance(InstanceContext(f"m_0_{index}", "CPU")) for index in range(2)]
        assert [run(each, ["y"], x=one)["y"].tolist()[0] for each in made] == expected
        for each in reversed(made):
            each.close()
        model.close()


def test_a_sequence_begins_with_a_call_of_the_reset_method(context: Any, instance: Instance) -> None:
    config = """
        sequence_batching { control_input {
            name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }
        } }
        parameters { key: "RESET_METHOD" value { string_value: "reset" } }"""
    made = instance(context({"model.pt": script(Counter())}, COUNTER + config))
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    starts = (one, zero, zero, one, zero)
    assert [run(made, ["y"], x=one, START=start)["y"].tolist()[0] for start in starts] == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [('KeyError("labels")', "KeyError: 'labels'"), ('ValueError("caf\\udce9")', r"caf\udce9")],
)
def test_what_the_code_of_a_model_raises(error: str, reason: str, context: Any, instance: Instance) -> None:
    code = f"import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        raise {error}\n"
    config = """input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }"""
    made = instance(context({"model.py": code}, config))
    with pytest.raises(InternalError) as raised:
        run(made, ["y"], x=np.ones(1, np.float32))
    assert str(raised.value) == f"PyTorch execute failure: {reason} (model 'm' version 1)"


def test_a_failing_run_says_what_failed_and_serving_goes_on(context: Any, instance: Instance) -> None:
    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)  # type: ignore[no-any-return]

    config = """max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }"""
    made = instance(context({"model.pt": script(Product())}, config))
    expected = r"^PyTorch execute failure: .*mat1 and mat2 shapes cannot be multiplied.*\(model 'm' version 1\)$"
    with pytest.raises(InternalError, match=expected):
        run(made, ["y"], x=np.ones((1, 4), np.float32))
    assert run(made, ["y"], x=np.ones((1, 3), np.float32))["y"].shape == (1, 2)
