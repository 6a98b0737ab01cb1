"""Dictionaries, lists and tuples of tensors as arguments, and results inside them, in every kind of file."""

# Annotations are read by TorchScript, which does not know those of a string.

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trivet.backend import ArrayInstance
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor

Instance = Callable[..., ArrayInstance]

A, B, C = (np.full((2, 3), value, np.float32) for value in (1, 10, 100))


class Scripted(torch.nn.Module):
    def forward(
        self,
        features: dict[str, torch.Tensor],
        images: list[torch.Tensor],
        pair: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        total = features["age"] + pair[0]
        return {"total": total, "pair": pair[1]}, [images[1], images[0]]


class Exported(torch.nn.Module):
    def forward(self, features: dict[str, list[torch.Tensor]], by: int, *, scale: torch.Tensor) -> dict[str, Any]:
        first, second = features["values"]
        return {"sum": first + second * by, "rest": (scale, [first])}


CODE = """
import torch

class Net(torch.nn.Module):
    def forward(self, features: dict, images: list[torch.Tensor], pair: tuple):
        assert isinstance(pair, tuple)
        total = features["age"] + pair[0]
        return {"total": total, "pair": pair[1]}, [images[1], images[0]]
"""


def tensors(names: dict[str, Any], which: str = "input") -> str:
    return "".join(f'{which} {{ name: "{name}" data_type: TYPE_FP32 dims: [ 3 ] }}\n' for name in names)


def script(path: Path) -> None:
    torch.jit.script(Scripted()).save(str(path))


def export() -> Any:
    x = torch.zeros(2, 3)
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    shapes = {"features": {"values": [batch, batch]}, "by": None, "scale": batch}
    return torch.export.export(Exported(), ({"values": [x, x.clone()]}, 3), {"scale": x.clone()}, dynamic_shapes=shapes)


def run(made: ArrayInstance, inputs: dict[str, Any], outputs: list[str]) -> Any:
    return made.execute({name: Tensor.from_numpy(name, value) for name, value in inputs.items()}, outputs)


GIVEN = {"features[age]": A, "images[0]": A, "images[1]": B, "pair[0]": B, "pair[1]": C}
TRITONS = dict(
    zip(("ARGS[0][age]", "ARGS[1][0]", "ARGS[1][1]", "ARGS[2][0]", "ARGS[2][1]"), GIVEN.values(), strict=True)
)


@pytest.mark.parametrize("file", [{"model.pt": script}, {"model.py": CODE}], ids=["torchscript", "eager"])
@pytest.mark.parametrize("given", [GIVEN, TRITONS], ids=["arguments", "Triton's names"])
@pytest.mark.parametrize("head", ["RESULT[{}]", "OUTPUT__{}"])
def test_parts_of_arguments_and_results(
    head: str, given: dict[str, Any], file: dict[str, Any], context: Any, instance: Instance
) -> None:
    expected = {"[total]": A + B, "[pair]": C, "[0]": B, "[1]": A}
    names = [head.format(index) + part for index, part in zip((0, 0, 1, 1), expected, strict=True)]
    config = "max_batch_size: 8\n" + tensors(given) + tensors(dict.fromkeys(names), "output")
    results = run(instance(context(file, config)), given, names)
    for name, value in zip(names, expected.values(), strict=True):
        np.testing.assert_array_equal(results[name], value)


def test_an_exported_program_tells_what_is_inside_its_arguments_and_results(context: Any, instance: Instance) -> None:
    made_context = context({"model.pt2": lambda path: torch.export.save(export(), path)})
    made = instance(made_context)
    config = made_context.config
    assert [message.name for message in config.input] == ["features[values][0]", "features[values][1]", "scale"]
    assert [message.name for message in config.output] == ["sum", "rest[0]", "rest[1][0]"]
    given = {"features[values][0]": A, "features[values][1]": B, "scale": C}
    results = run(made, given, ["sum", "rest[0]", "rest[1][0]"])
    for name, value in (("sum", A + 3 * B), ("rest[0]", C), ("rest[1][0]", A)):
        np.testing.assert_array_equal(results[name], value)


def test_a_number_of_an_exported_program_may_be_free_or_the_one_that_it_was_exported_with(
    context: Any, instance: Instance
) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor, by: int) -> torch.Tensor:
            return x * by

    x, given = torch.zeros(2, 3), {"x": A, "by": np.array([[4], [4]])}
    for dynamic, inputs in ((True, ["x", "by"]), (False, ["x"])):
        shapes = {
            "x": {0: torch.export.Dim("batch", min=1, max=8)},
            "by": torch.export.Dim.DYNAMIC if dynamic else None,
        }
        program = torch.export.export(Scaled(), (x, 7), dynamic_shapes=shapes)
        made_context = context({"model.pt2": lambda path, made=program: torch.export.save(made, path)})
        made = instance(made_context)
        assert [message.name for message in made_context.config.input] == inputs
        result = run(made, {name: given[name] for name in inputs}, ["OUTPUT__0"])["OUTPUT__0"]
        np.testing.assert_array_equal(result, A * (4 if dynamic else 7))


@pytest.mark.skipif(shutil.which("g++") is None, reason="making a package needs a C++ compiler")
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's compiler, of its own code
def test_a_package_of_aotinductor_has_tritons_names(context: Any, instance: Instance) -> None:
    import torch._inductor as inductor

    class Pair(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor], scale: torch.Tensor) -> list[torch.Tensor]:
            return [features["a"] + features["b"], scale * 2]

    x = torch.zeros(2, 3)
    program = torch.export.export(Pair(), ({"a": x, "b": x.clone()},), {"scale": x.clone()})
    given = {"ARGS[0][a]": A, "ARGS[0][b]": B, "KWARGS[scale]": C}
    outputs = dict.fromkeys(["RESULT[0]", "RESULT[1]"])
    config = (tensors(given) + tensors(outputs, "output")).replace("[ 3 ]", "[ 2, 3 ]")
    files = {"model.pt2": lambda path: inductor.aoti_compile_and_package(program, package_path=str(path))}
    results = run(instance(context(files, config)), given, list(outputs))
    np.testing.assert_array_equal(results["RESULT[0]"], A + B)
    np.testing.assert_array_equal(results["RESULT[1]"], 2 * C)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (
            ["features", "images", "pair"],
            "RESULT[0][total]",
            r"'features' is one tensor, .* a dict; .*: features\[KEY\]",
        ),
        (["features[age]", "images[0]"], "RESULT[0][total]", "configuration expects 2 inputs, model provides 3"),
        ([*GIVEN], "RESULT[2]", "output index which doesn't exist. This model has 2 outputs"),
    ],
)
def test_names_that_are_not_the_networks(
    inputs: list[str], output: str, message: str, context: Any, instance: Instance
) -> None:
    config = tensors(dict.fromkeys(inputs)) + tensors({output: None}, "output")
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context({"model.pt": script}, config))


def test_a_list_may_lack_its_end_and_nothing_before(context: Any, instance: Instance) -> None:
    code = """
import torch

class Net(torch.nn.Module):
    def forward(self, images: list[torch.Tensor]):
        return images[-1]
"""
    names = {f"images[{index}]": None for index in range(3)}
    made = instance(
        context({"model.py": code}, tensors(names).replace(" }", " optional: true }") + tensors({"y": None}, "output"))
    )
    given = {"images[0]": A[0], "images[1]": B[0]}
    np.testing.assert_array_equal(run(made, given, ["y"])["y"], B[0])
    with pytest.raises(InvalidArgumentError, match=r"there is no input 'images\[0\]', and one that comes after it"):
        run(made, {"images[2]": C[0]}, ["y"])


def test_a_result_that_only_the_run_shows_not_to_be_there(context: Any, instance: Instance) -> None:
    config = "max_batch_size: 8\n" + tensors(GIVEN) + tensors({"RESULT[0][mean]": None}, "output")
    made = instance(context({"model.pt": script}, config))
    expected = r"no 'RESULT\[0\]\[mean\]'; it gave \[\{total: tensor, pair: tensor\}, \[tensor, tensor\]\]"
    with pytest.raises(InternalError, match=expected):
        run(made, GIVEN, ["RESULT[0][mean]"])
