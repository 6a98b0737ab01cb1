"""Ensembles whose steps and tensors do not connect, or that have what only other models can have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from config_problems import Wrong, each, problems
from config_samples import Json, plain
from trivet.config import Problem, find_problems, normalize, parse_json_config

WRONG: list[Wrong] = [
    (
        plain(platform="ensemble", ensemble_scheduling={"step": [{"model_name": "x"}]}),
        "backend",
        "Ensemble model 'm' must have platform type 'ensemble' and empty backend type",
    ),
    (
        plain(platform="ensemble", backend=""),
        "ensemble_scheduling",
        "ensemble scheduling must be set for ensemble m whose platform is ensemble",
    ),
    (
        plain(ensemble_scheduling={}),
        "platform",
        "ensemble scheduling cannot be set for model 'm' whose platform is not ensemble",
    ),
]


@each(WRONG)
def test_what_is_wrong_is_said(config: Json, field: str, message: str) -> None:
    assert (field, message) in problems(config)


def ensemble(*steps: tuple[str, dict[str, str], dict[str, str]], **changes: Any) -> Json:
    scheduling = {"step": [{"model_name": n, "input_map": i, "output_map": o} for n, i, o in steps]}
    return plain(platform="ensemble", backend="", ensemble_scheduling=scheduling) | changes


def test_an_ensemble_whose_tensors_connect_is_right() -> None:
    assert problems(ensemble(("a", {"i": "A"}, {"o": "t"}), ("b", {"i": "t"}, {"o": "B"}))) == []
    # The order of steps does not matter, and a tensor may be read twice.
    steps = [("b", {"i": "t", "j": "A"}, {"o": "B"}), ("a", {"i": "A"}, {"o": "t"})]
    assert problems(ensemble(*steps)) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ensemble(), [Problem("ensemble_scheduling.step", "must specify 'step' for ensemble 'm'")]),
        (
            ensemble(("", {}, {"o": "B"})),
            [
                Problem(
                    "ensemble_scheduling.step[0].model_name", "must specify 'model_name' in step 0 of ensemble 'm'"
                ),
                Problem("ensemble_scheduling.step[0].input_map", "must specify 'input_map' in step 0 of ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A"}, {"o": "B"}), ("b", {"i": "A"}, {"o": "B"})),
            [
                Problem(
                    "ensemble_scheduling.step[1].output_map",
                    "ensemble tensor 'B' can appear in an output map only once for ensemble 'm' step 1",
                )
            ],
        ),
        (
            ensemble(("a", {"i": "t"}, {"o": "B"})),
            [
                Problem("input[0].name", "ensemble input 'A' for ensemble 'm' is not used"),
                Problem(
                    "output[0].name",
                    "output 'B' for ensemble 'm' is not written: at least one of its depending tensors, 't', is not"
                    " connected",
                ),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A"}, {"o": "t"})),
            [
                Problem("output[0].name", "ensemble output 'B' for ensemble 'm' is not used"),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A", "j": "u"}, {"o": "t"}), ("b", {"i": "t"}, {"o": "u", "p": "B"})),
            [
                Problem(
                    "output[0].name",
                    "output 'B' for ensemble 'm' is not written: at least one of its depending tensors, 'u', is not"
                    " connected",
                ),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
                Problem("ensemble_scheduling.step", "ensemble tensor 'u' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(
                ("a", {"i": "A"}, {"o": "B"}),
                instance_group=[{}],
                optimization={},
                model_warmup=[{"name": "w"}],
            ),
            [
                Problem("instance_group", "instance group should not be specified for ensemble 'm'"),
                Problem("optimization", "optimization should not be specified for ensemble 'm'"),
                Problem("model_warmup", "model_warmup can not be specified for ensemble 'm'"),
            ],
        ),
    ],
)
def test_what_is_wrong_with_an_ensemble_is_said(config: Json, expected: list[Problem]) -> None:
    parsed = parse_json_config(json.dumps(config), "test")
    normalize(parsed)
    assert find_problems(parsed) == expected
