"""An ensemble against the models that it is made of: what fits, and how it is said that something does not."""

from __future__ import annotations

from typing import Any

import pytest
from trivet.config import ModelConfig
from trivet.config.validation.ensemble_graph import check_graph

Tensors = dict[str, tuple[str, list[int]]]


def model(
    name: str,
    inputs: Tensors,
    outputs: Tensors,
    *,
    batch: int = 8,
    optional: str = "",
    decoupled: bool = False,
    **more: Any,
) -> ModelConfig:
    return ModelConfig(
        name=name,
        max_batch_size=batch,
        input=[
            {"name": tensor, "data_type": kind, "dims": dims, "optional": tensor in optional}
            for tensor, (kind, dims) in inputs.items()
        ],
        output=[{"name": tensor, "data_type": kind, "dims": dims} for tensor, (kind, dims) in outputs.items()],
        model_transaction_policy={"decoupled": decoupled},
        **more,
    )


FLOATS = ("TYPE_FP32", [4])
MEMBERS = {
    config.name: config
    for config in (
        model("same", {"x": FLOATS}, {"y": FLOATS}),
        model("sum", {"a": FLOATS, "b": FLOATS}, {"s": FLOATS}, optional="b"),
        model("ints", {"x": ("TYPE_INT32", [4])}, {"y": ("TYPE_INT32", [4])}),
        model("wide", {"x": ("TYPE_FP32", [-1])}, {"y": ("TYPE_FP32", [5])}),
        model("small", {"x": FLOATS}, {"y": FLOATS}, batch=2),
        model("whole", {"x": ("TYPE_FP32", [-1, 4])}, {"y": ("TYPE_FP32", [-1, 4])}, batch=0),
        model("many", {"x": FLOATS}, {"y": FLOATS}, decoupled=True),
    )
}


def ensemble(*steps: tuple[str, dict[str, str], dict[str, str]], outputs: Tensors | None = None) -> ModelConfig:
    return model(
        "e",
        {"I": FLOATS},
        outputs or {"O": FLOATS},
        ensemble_scheduling={
            "step": [
                {"model_name": name, "model_version": -1, "input_map": inputs, "output_map": outs}
                for name, inputs, outs in steps
            ]
        },
    )


@pytest.mark.parametrize(
    "steps",
    [
        [("same", {"x": "I"}, {"y": "O"})],
        [("sum", {"a": "I"}, {"s": "O"})],
        [("same", {"x": "I"}, {"y": "t"}), ("wide", {"x": "t"}, {"y": "u"}), ("sum", {"a": "I", "b": "t"}, {"s": "O"})],
        [("whole", {"x": "I"}, {"y": "O"})],
    ],
    ids=["one", "optional input", "any size", "a model without batches takes the batch"],
)
def test_steps_that_fit_each_other(steps: Any) -> None:
    graph = check_graph(ensemble(*steps), MEMBERS)
    assert list(graph.problems) == []
    assert not graph.decoupled


@pytest.mark.parametrize(
    ("steps", "field", "message"),
    [
        (
            [("same", {"q": "I", "x": "I"}, {"y": "O"})],
            "ensemble_scheduling.step[0].input_map",
            "in ensemble e, ensemble tensor I is mapping to non-existing input q in model same",
        ),
        (
            [("same", {"x": "I"}, {"y": "O"}), ("same", {"x": "I"}, {"q": "t"})],
            "ensemble_scheduling.step[1].output_map",
            "in ensemble e, ensemble tensor t is mapped from non-existing output q in model same",
        ),
        (
            [("sum", {"b": "I"}, {"s": "O"})],
            "ensemble_scheduling.step[0].input_map",
            "in ensemble e, input a in model sum is not mapped to any ensemble tensors",
        ),
        (
            [("ints", {"x": "I"}, {"y": "t"}), ("same", {"x": "I"}, {"y": "O"})],
            "ensemble_scheduling.step[0].input_map",
            (
                "in ensemble e, ensemble tensor I: inconsistent data type: TYPE_FP32 is inferred from model e while"
                " TYPE_INT32 is inferred from model ints"
            ),
        ),
        (
            [("wide", {"x": "I"}, {"y": "t"}), ("same", {"x": "t"}, {"y": "O"})],
            "ensemble_scheduling.step[1].input_map",
            (
                "in ensemble e, ensemble tensor t: inconsistent shape: [-1,5] is inferred from model wide while [-1,4]"
                " is inferred from model same"
            ),
        ),
        (
            [("small", {"x": "I"}, {"y": "O"})],
            "ensemble_scheduling.step[0].model_name",
            (
                "ensemble e allows maximum batch size 8, but it contains model small which only allows maximum batch"
                " size to be 2"
            ),
        ),
        (
            [("many", {"x": "I"}, {"y": "t"}), ("sum", {"a": "t", "b": "I"}, {"s": "O"})],
            "ensemble_scheduling.step[1].input_map",
            "in ensemble e, step of model 'sum' receives inputs originated from different decoupled models",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_step_and_tensor(steps: Any, field: str, message: str) -> None:
    problems = check_graph(ensemble(*steps), MEMBERS).problems
    assert [(problem.field, problem.message) for problem in problems] == [(field, message)]


def test_an_ensemble_is_decoupled_where_one_of_its_models_is() -> None:
    chain = ensemble(("many", {"x": "I"}, {"y": "t"}), ("same", {"x": "t"}, {"y": "O"}))
    assert check_graph(chain, MEMBERS).decoupled


def test_outputs_that_come_as_often_as_each_other_only() -> None:
    both = ensemble(
        ("many", {"x": "I"}, {"y": "O"}), ("same", {"x": "I"}, {"y": "P"}), outputs={"O": FLOATS, "P": FLOATS}
    )
    (problem,) = check_graph(both, MEMBERS).problems
    assert (
        problem.message == "in ensemble e, step of model 'e' receives inputs originated from different decoupled models"
    )
