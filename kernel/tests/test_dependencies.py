"""Which models an ensemble needs, and in which order models load."""

from __future__ import annotations

import asyncio

import pytest
from trivet.config import ModelConfig
from trivet.dependencies import find_circles, in_order, members_of

pytestmark = pytest.mark.anyio


def test_an_ensemble_needs_the_models_of_its_steps_in_the_versions_that_they_name() -> None:
    steps = [("a", -1), ("b", 2), ("a", 3)]
    config = ModelConfig(
        name="e", ensemble_scheduling={"step": [{"model_name": name, "model_version": n} for name, n in steps]}
    )
    assert members_of(config) == {"a": {-1, 3}, "b": {2}}
    assert members_of(ModelConfig(name="m")) == {}


@pytest.mark.parametrize(
    ("graph", "circles"),
    [
        ({"e": ["a", "b"], "a": [], "b": ["a"]}, {}),
        ({"e": ["e"]}, {"e": "e -> e"}),
        (
            {"a": ["b"], "b": ["c"], "c": ["a"]},
            {"a": "a -> b -> c -> a", "b": "b -> c -> a -> b", "c": "c -> a -> b -> c"},
        ),
        ({"x": ["a"], "a": ["b"], "b": ["a"]}, {"a": "a -> b -> a", "b": "b -> a -> b"}),
        ({"a": ["a"], "b": ["c"], "c": ["b"]}, {"a": "a -> a", "b": "b -> c -> b", "c": "c -> b -> c"}),
    ],
)
def test_models_that_need_themselves_are_found_with_the_circle(
    graph: dict[str, list[str]], circles: dict[str, str]
) -> None:
    assert find_circles(graph) == circles


async def test_a_model_loads_after_what_it_needs_and_beside_what_it_does_not() -> None:
    graph = {"top": ["left", "right"], "left": ["base"], "right": ["base"], "base": ["elsewhere"], "alone": []}
    started: list[str] = []
    gates = {name: asyncio.Event() for name in graph}

    async def load(name: str) -> None:
        started.append(name)
        await gates[name].wait()
        if name == "left":
            raise OSError("no such file")

    running = asyncio.ensure_future(in_order(graph, load))
    for name, expected in {
        "base": {"base", "alone"},
        "right": {"base", "alone", "left", "right"},
        "left": {"base", "alone", "left", "right"},
    }.items():
        for _ in range(5):
            await asyncio.sleep(0)
        assert set(started) == expected
        gates[name].set()
    gates["top"].set()
    gates["alone"].set()
    results = await running
    assert started[-1] == "top"
    assert {name: str(error) for name, error in results.items() if error} == {"left": "no such file"}
