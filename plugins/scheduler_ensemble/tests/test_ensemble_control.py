"""Loading, replacing and unloading ensembles and the models that they are made of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from anyio import to_thread
from ensemble_models import Answers, Operations, Repository, ask, numbers, tensors
from trivet.checking import check_repository
from trivet.config import to_dict
from trivet.engine import Engine, EngineOptions
from trivet.errors import InvalidArgumentError, NotFoundError, TrivetError, UnavailableError
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

ONE = [1.0, 2.0, 3.0, 4.0]
M = ("m", {"x": "I"}, {"y": "O"})
OF_N = json.dumps(
    {
        "platform": "ensemble",
        "max_batch_size": 8,
        "input": [{"name": "I", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "O", "data_type": "TYPE_FP32", "dims": [4]}],
        "ensemble_scheduling": {
            "step": [{"model_name": "n", "model_version": -1, "input_map": {"x": "I"}, "output_map": {"z": "O"}}]
        },
    }
)
"""An ensemble's configuration as a load request brings it."""


async def answer(engine: Engine, model: str = "e") -> list[float]:
    (row,) = numbers(await engine.infer(InferenceRequest(model, tensors(I=ONE))))["O"]
    return list(row)


async def states(engine: Engine) -> dict[str, str]:
    return {entry.name: entry.state for entry in await engine.repository_index() if entry.state}


async def test_at_start_an_ensemble_loads_after_its_models(models: Repository, operations: Operations) -> None:
    models.ensemble("a_outer", ("b_inner", {"I": "I"}, {"O": "t"}), ("z", {"x": "t"}, {"y": "O"}))
    models.ensemble("b_inner", ("z", {"x": "I"}, {"y": "O"}))
    models.model("z")
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert await answer(engine, "a_outer") == [3, 4, 5, 6]
        assert engine.ready


async def test_loading_an_ensemble_loads_what_it_is_made_of(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.model("unrelated")
    models.ensemble("inner", M)
    models.ensemble("e", ("inner", {"I": "I"}, {"O": "O"}))
    async with running_engine(
        models.root, registry=operations.registry(), model_control_mode="explicit", load_models=["e"]
    ) as engine:
        assert await states(engine) == {"e": "READY", "inner": "READY", "m": "READY"}
        assert await answer(engine) == [2, 3, 4, 5]


async def test_unloading_leaves_the_models_unless_it_is_asked_to_take_them(
    models: Repository, operations: Operations
) -> None:
    for name in ("m", "shared", "wanted"):
        models.model(name)
    steps = [(name, {"x": "I"}, {"y": tensor}) for name, tensor in (("m", "O"), ("shared", "t"), ("wanted", "u"))]
    models.ensemble("e", *steps, outputs=("O", "t", "u"))
    models.ensemble("other", ("shared", {"x": "I"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("wanted")
        await engine.load("e")
        await engine.load("other")
        await engine.unload("e")
        assert engine.model_ready("m")
        await engine.load("e")
        await engine.unload("e", unload_dependents=True)
        assert [name for name in ("e", "m", "shared", "wanted", "other") if engine.model_ready(name)] == [
            "shared",
            "wanted",
            "other",
        ]


async def test_an_ensemble_goes_with_a_model_and_comes_back_with_it(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("inner", M)
    models.ensemble("e", ("inner", {"I": "I"}, {"O": "O"}))
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e")
        await engine.unload("m")
        for name in ("e", "inner", "m"):
            assert not engine.model_ready(name)
        with pytest.raises(NotFoundError, match="Request for unknown model: 'e' has no available versions"):
            await answer(engine)
        assert engine.ready, "what was unloaded on request is not missed"
        await engine.load("m")
        assert await answer(engine) == [2, 3, 4, 5]
        # One that was unloaded itself stays away.
        await engine.unload("e")
        await engine.load("m")
        assert [name for name in ("e", "inner", "m") if engine.model_ready(name)] == ["inner", "m"]


async def test_an_ensemble_uses_the_model_that_replaces_another(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("e", M)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e")
        before = engine.model("m")
        models.model("m", versions=(1, 2))
        await engine.load("m")
        await answer(engine)
        assert engine.model("m").version == 2
        assert [stats.inference_count for stats in engine.statistics("m")] == [0, 1]
    assert not before.instances


async def test_what_is_under_way_ends_on_the_models_that_it_began_with(
    models: Repository, operations: Operations
) -> None:
    models.model("slow", "wait")
    models.model("m")
    models.ensemble("e", ("slow", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e")
        member = engine.model("m")
        answers = Answers()
        engine.submit(ask("e", tensors(I=ONE), answers))
        await to_thread.run_sync(operations.started["slow"].wait, 30)
        await engine.unload("m")
        assert not engine.model_ready("e")
        assert member.instances, "the request still needs it"
        operations.gates["slow"].set()
        await answers.final.wait()
        assert numbers(answers.all[0]) == {"O": [[3, 4, 5, 6]]}


async def test_an_ensemble_that_does_not_fit_a_replaced_model_goes_out_of_service(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    models.ensemble("e", M)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e")
        models.model("m", dims=(5,))
        await engine.load("m")
        assert engine.model_ready("m")
        assert not engine.model_ready("e")
        models.model("m")
        await engine.load("m")
        assert await answer(engine) == [2, 3, 4, 5]


async def test_a_reload_that_fails_leaves_what_was_loaded(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("e", M)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e")
        models.ensemble("e", ("m", {"q": "I"}, {"y": "O"}))
        with pytest.raises(InvalidArgumentError, match="non-existing input q"):
            await engine.load("e")
        assert await answer(engine) == [2, 3, 4, 5]
        await engine.unload("m")
        assert not engine.model_ready("e")


async def test_an_ensemble_may_be_configured_by_the_load_request(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.model("n")
    models.ensemble("e", M)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e", config=OF_N)
        assert await answer(engine) == [10, 20, 30, 40]
        # It is built again from what it was loaded with, not from what the repository holds.
        models.model("n", versions=(1, 2))
        await engine.load("n")
        assert await answer(engine) == [10, 20, 30, 40]
        await engine.unload("n")
        await engine.unload("m")
        # Without a configuration it is what the repository holds, and so are the models that it needs.
        await engine.load("e")
        assert await answer(engine) == [2, 3, 4, 5]


async def test_a_model_keeps_the_files_of_its_load_request_until_it_is_unloaded(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    models.ensemble("e", M)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("m")
        config = json.dumps(to_dict(engine.model("m").config))
        await engine.load("m", config=config, files={"7/README": b"a model of arithmetic needs no file"})
        before = engine.model("m")
        await engine.load("e")
        assert engine.model("m") is before
        await engine.unload("m")
        await engine.load("e")
        assert engine.versions("m") == [1]


async def test_an_ensemble_that_no_repository_holds_may_come_whole_with_the_load_request(
    models: Repository, operations: Operations
) -> None:
    models.model("n")
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        await engine.load("e", config=OF_N, files={"1/README": b"an ensemble's version is empty"})
        assert await answer(engine) == [10, 20, 30, 40]
        assert await states(engine) == {"e": "READY", "n": "READY"}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [("nosuch", {"x": "I"}, {"y": "O"})],
            "ensemble e contains models that are not available or ambiguous: nosuch",
        ),
        (
            [("broken", {"x": "I"}, {"y": "O"})],
            (
                "ensemble 'e' depends on 'broken' which has no loaded version. Model 'broken' loading failed with"
                " error: version 1 is at UNAVAILABLE state: Internal: this model cannot be loaded;"
            ),
        ),
        (
            [("misfit", {"I": "I"}, {"O": "O"})],
            (
                "ensemble 'e' depends on 'misfit' which is not valid. Model 'misfit' failed with error: in ensemble"
                " misfit, ensemble tensor I is mapping to non-existing input q in model m"
            ),
        ),
        ([(*M, 7)], "ensemble 'e' depends on 'm' whose required version 7 is not loaded."),
        ([("e", {"I": "I"}, {"O": "O"})], "circular dependency between ensembles: e -> e"),
        ([("circle", {"I": "I"}, {"O": "O"})], "circular dependency between ensembles: e -> circle -> e"),
    ],
    ids=["missing", "broken", "misfit", "version", "itself", "circle"],
)
async def test_what_a_model_lacks_is_said_as_triton_says_it(
    models: Repository, operations: Operations, steps: list[tuple[str, dict[str, str], dict[str, str]]], message: str
) -> None:
    models.model("m")
    models.model("broken", "broken")
    models.ensemble("misfit", ("m", {"q": "I"}, {"y": "O"}))
    models.ensemble("circle", ("e", {"I": "I"}, {"O": "O"}))
    models.ensemble("e", *steps)
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        with pytest.raises(TrivetError) as error:
            await engine.load("e")
        assert str(error.value).startswith(f"load failed for model 'e': {message}")
        assert not engine.model_ready("e")


async def test_every_bad_ensemble_leaves_the_others_alone_at_start(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("good", M)
    models.ensemble("a", ("b", {"I": "I"}, {"O": "O"}))
    models.ensemble("b", ("a", {"I": "I"}, {"O": "O"}))
    models.ensemble("c", ("nosuch", {"x": "I"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry(), allow_failures=True) as engine:
        assert await answer(engine, "good") == [2, 3, 4, 5]
        assert [name for name in "abc" if engine.model_ready(name)] == []


async def test_many_loads_and_unloads_at_once_end_in_a_state_that_holds(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    models.model("n")
    models.ensemble("inner", M)
    models.ensemble("e", ("inner", {"I": "I"}, {"O": "t"}), ("n", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry(), model_control_mode="explicit") as engine:
        for turn in range(6):
            models.model("m", versions=range(1, 2 + turn % 3))
            await asyncio.gather(
                engine.load("e"),
                engine.unload("m"),
                engine.load("m"),
                engine.unload("inner"),
                engine.load("inner"),
                engine.unload("n", unload_dependents=True),
                engine.load("n"),
                return_exceptions=True,
            )
        await engine.load("e")
        assert await answer(engine) == [3, 4, 5, 6]
        for name in ("m", "n"):
            await engine.unload(name)
        assert set((await states(engine)).values()) <= {"UNLOADING", "UNAVAILABLE"}


async def test_the_scheduler_that_is_missing_is_named_with_the_way_to_get_it(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    models.ensemble("e", M)
    without = PluginRegistry(
        plugin for plugin in operations.registry().plugins if not any(kind == "scheduler" for kind, _ in plugin.offers)
    )
    async with running_engine(models.root, registry=without, allow_failures=True) as engine:
        assert engine.model_ready("m")
        assert not engine.model_ready("e")
    results = check_repository(without, EngineOptions(model_repositories=[str(models.root)]))
    (found,) = [result for result in results if result.model == "e"]
    assert "install it with: pip install trivet-scheduler-ensemble" in found.messages[0]


def test_check_looks_at_an_ensemble_together_with_its_models(tmp_path: Path, operations: Operations) -> None:
    models = Repository(tmp_path)
    models.model("m")
    models.ensemble("good", M)
    models.ensemble("misfit", ("m", {"x": "I", "q": "I"}, {"y": "O"}))
    models.ensemble("over", ("misfit", {"I": "I"}, {"O": "O"}))
    models.ensemble("round", ("round", {"I": "I"}, {"O": "O"}))
    models.ensemble("version", (*M, 3))
    models.ensemble("missing", ("nosuch", {"x": "I"}, {"y": "O"}))
    results = {
        result.model: result
        for result in check_repository(operations.registry(), EngineOptions(model_repositories=[str(tmp_path)]))
    }
    assert [name for name, result in results.items() if result.ok] == ["good", "m"]
    assert results["good"].backend == "ensemble"
    for name, message in {
        "misfit": "ensemble tensor I is mapping to non-existing input q in model m",
        "over": "ensemble 'over' depends on 'misfit' which is not valid",
        "round": "circular dependency between ensembles: round -> round",
        "version": "ensemble 'version' depends on 'm' whose required version 3 is not loaded",
        "missing": "ensemble missing contains models that are not available or ambiguous: nosuch",
    }.items():
        assert message in results[name].messages[0]


async def test_class_labels_are_those_of_the_models_that_write_the_outputs(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    config = (models.root / "m" / "config.pbtxt").read_text()
    (models.root / "m" / "config.pbtxt").write_text(config.replace('name: "y"', 'name: "y" label_filename: "labels"'))
    (models.root / "m" / "labels").write_text("red\ngreen\nblue\nwhite\n")
    models.ensemble("inner", ("m", {"x": "I"}, {"y": "O", "z": "P"}), outputs=("O", "P"))
    models.ensemble("e", ("inner", {"I": "I"}, {"O": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert engine.model("inner").labels == engine.model("e").labels == {"O": ["red", "green", "blue", "white"]}


async def test_a_server_that_stops_makes_no_more_steps(models: Repository, operations: Operations) -> None:
    """Those that wait for ``max_inflight_requests`` would be executed one by one, for nobody, while it waits."""
    models.model("slow", "wait")
    models.ensemble("e", ("slow", {"x": "I"}, {"y": "O"}), most=1)
    async with running_engine(models.root, registry=operations.registry()) as engine:
        asked = [Answers() for _ in range(3)]
        for answers in asked:
            engine.submit(ask("e", tensors(I=ONE), answers))
        await to_thread.run_sync(operations.started["slow"].wait, 30)
        scheduler = engine.model("e").scheduler
        assert scheduler.queued == 2
        engine.abandon()
        assert [type(answers.all[0].error) for answers in asked] == [UnavailableError] * 3
        assert scheduler.queued == 0
        assert not engine.model("slow").in_flight
        operations.gates["slow"].set()
    assert len(operations.seen["slow"]) == 1
