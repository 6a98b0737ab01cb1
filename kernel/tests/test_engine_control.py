"""The engine loads, reloads and unloads models, says what is wrong with them, and stops."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import Journal
from arithmetic_models import Repository, ask, request
from trivet.engine import Engine
from trivet.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TrivetError,
    UnavailableError,
)
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.lifecycle import ModelEvent, ModelState
from trivet.tensor import Tensor

pytestmark = pytest.mark.anyio

FAILS = 'parameters { key: "fail" value { string_value: "create" } }'
BROUGHT = '{"backend": "arithmetic"}'


class Files(dict[str, bytes]):
    """The files of a load request, which tell when nobody has them any more."""


@pytest.fixture
def no_collections() -> Iterator[None]:
    """What stays in memory until a garbage collection stays."""
    gc.disable()
    yield
    gc.enable()


class TestControl:
    async def test_unloaded_models_are_gone_and_their_requests_finish(self, engine: Engine, journal: Journal) -> None:
        with journal.gate:
            last = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            await engine.unload("double")
            with pytest.raises(NotFoundError, match="'double' has no available versions"):
                await ask(engine)
            assert [entry.state for entry in await engine.repository_index()] == ["UNLOADING"]
        assert await last == [2.0]

    async def test_a_model_can_be_loaded_again(self, engine: Engine) -> None:
        for _ in range(3):
            await engine.unload("double")
            assert not engine.model_ready("double")
            await engine.load("double")
            assert await ask(engine) == [2.0]

    async def test_a_load_is_finished_though_its_caller_goes_away(self, repository: Repository) -> None:
        repository.add("double")
        async with repository.serve(model_control_mode="explicit") as engine:
            ready = asyncio.Event()
            engine.on_model_event.append(lambda event: ready.set() if event.state is ModelState.READY else None)
            load = asyncio.ensure_future(engine.load("double"))
            engine.on_model_event.append(lambda event: load.cancel() if event.state is ModelState.LOADING else None)
            with pytest.raises(asyncio.CancelledError):
                await load
            await ready.wait()
            assert await ask(engine) == [2.0]

    async def test_loads_of_one_model_at_once_load_it_once(self, repository: Repository, journal: Journal) -> None:
        repository.add("double")
        async with repository.serve(model_control_mode="explicit") as engine:
            await asyncio.gather(*(engine.load("double") for _ in range(5)))
            assert await ask(engine) == [2.0]
            assert len(journal.threads["create"]) == 1

    async def test_loading_what_did_not_change_does_nothing(self, engine: Engine) -> None:
        before = engine.model("double")
        await engine.load("double")
        assert engine.model("double") is before

    async def test_a_changed_model_replaces_the_old_one_without_a_gap(
        self, engine: Engine, repository: Repository, journal: Journal
    ) -> None:
        with journal.gate:
            old = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            repository.add("double", v1=30.0)
            await engine.load("double")
            assert engine.model_ready("double")
            new = asyncio.ensure_future(ask(engine))
        assert await old == [2.0]
        assert await new == [30.0]

    async def test_a_reload_that_fails_leaves_the_old_model_serving(
        self, engine: Engine, repository: Repository
    ) -> None:
        (repository.path / "double" / "1" / "model.arith").write_text("not a number")
        with pytest.raises(
            InvalidArgumentError,
            match="load failed for model 'double': version 1 is at UNAVAILABLE state: Internal: Val",
        ):
            await engine.load("double")
        assert await ask(engine) == [2.0]
        assert engine.ready

    async def test_a_configuration_can_come_with_the_request(self, engine: Engine) -> None:
        await engine.load("double", config=json.dumps({"backend": "arithmetic", "max_batch_size": 4}))
        assert engine.model("double").spec.max_batch_size == 4
        with pytest.raises(InvalidArgumentError, match="batch-size must be <= 4"):
            engine.submit(InferenceRequest("double", {"x": Tensor.from_numpy("x", np.zeros((5, 1), np.float32))}))

    async def test_a_version_that_hangs_does_not_keep_a_better_one_from_loading(
        self, engine: Engine, repository: Repository, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trivet.retirement.UNLOAD_PATIENCE_S", 0.01)
        with journal.gate:
            hanging = request()
            hanging.on_response = lambda *_: None
            engine.submit(hanging)
            await to_thread.run_sync(journal.gate.wait_until_entered)
            await engine.unload("double")
            repository.add("double", v1=3.0)
            await engine.load("double")
            engine.cancel(hanging)
        assert await ask(engine) == [3.0]
        await engine.stop()
        assert journal.closed == ["double/1", "double/1"]

    async def test_an_attempt_that_fails_leaves_nothing_in_memory(
        self, repository: Repository, journal: Journal
    ) -> None:
        repository.add("many", "version_policy { all {} }", v1=1.0, v2=2.0)
        (repository.path / "many" / "2" / "model.arith").write_text("no number")
        async with repository.serve(allow_failures=True, model_load_retry_count=2) as engine:
            assert engine.versions("many") == []
        assert journal.closed == ["many/1"] * 3

    async def test_files_can_come_with_the_request_and_go_with_the_model(
        self, engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path_factory.mktemp("uploads")
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        await engine.load("double", config=BROUGHT, files={"1/model.arith": b"5"})
        assert await ask(engine) == [5.0]
        assert len(list(folder.iterdir())) == 1
        await engine.load("double")
        assert await ask(engine) == [2.0]
        await engine.stop()
        assert list(folder.iterdir()) == []

    async def test_files_of_a_request_are_not_kept_in_memory(self, engine: Engine, no_collections: None) -> None:
        files = Files({"1/model.arith": b"5"})
        kept = weakref.ref(files)
        await engine.load("double", config=BROUGHT, files=files)
        del files
        assert kept() is None
        assert await ask(engine) == [5.0]

    async def test_files_that_make_no_model_are_not_kept_in_memory(self, engine: Engine, no_collections: None) -> None:
        files = Files({"1/README": b"the factor is missing"})
        kept = weakref.ref(files)
        try:
            await engine.load("new", config=BROUGHT, files=files)
        except InvalidArgumentError:
            del files
        await asyncio.sleep(0)  # the event loop is still at what woke this task
        assert kept() is None

    async def test_a_model_that_cannot_be_loaded_is_not_kept_in_memory(
        self, repository: Repository, journal: Journal, no_collections: None
    ) -> None:
        settings = {"fail": "refuse", "cycle": ""}
        config = "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in settings.items()
        )
        repository.add("bad", config)
        async with repository.serve(model_control_mode="explicit") as engine:
            with pytest.raises(InvalidArgumentError, match="there is to be no instance"):
                await engine.load("bad")
            assert [model() for model in journal.loaded] == [None]

    async def test_unloading_ends_what_a_request_brought(self, engine: Engine) -> None:
        await engine.load("double", config=BROUGHT, files={"1/model.arith": b"5"})
        await engine.unload("double")
        await engine.load("double")
        assert await ask(engine) == [2.0]

    @pytest.mark.parametrize("path", ["../evil", "/etc/evil", "1/../../evil", ""])
    async def test_files_cannot_leave_the_model(self, engine: Engine, path: str) -> None:
        with pytest.raises(InvalidArgumentError, match="must be a path inside the model's folder"):
            await engine.load("double", config='{"backend": "arithmetic"}', files={path: b""})
        assert await ask(engine) == [2.0]

    @pytest.mark.parametrize("name", ["nope", "", "..", "../double", "a/b", "a\0b"])
    async def test_loading_what_no_repository_holds(self, engine: Engine, name: str) -> None:
        with pytest.raises(InternalError, match="failed to poll from model repository"):
            await engine.load(name)

    async def test_without_explicit_control_models_cannot_be_loaded(self, repository: Repository) -> None:
        repository.add("double")
        async with repository.serve() as engine:
            with pytest.raises(UnavailableError, match="explicit model load / unload is not allowed"):
                await engine.unload("double")

    async def test_events_tell_each_step(self, repository: Repository) -> None:
        repository.add("double")
        async with repository.serve(model_control_mode="explicit") as engine:
            events: list[ModelEvent] = []
            engine.on_model_event.append(events.append)
            await engine.load("double")
            await engine.unload("double")
            await engine.load("double")
            assert [event.state for event in events] == [
                ModelState.LOADING,
                ModelState.READY,
                ModelState.UNLOADING,
                ModelState.UNAVAILABLE,
                ModelState.LOADING,
                ModelState.READY,
            ]


class TestBadModels:
    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            (FAILS, "RuntimeError: no room for this instance"),
            ('backend: "nope"', "unable to find backend 'nope'; installed backends are: arithmetic"),
            ('backend: "onnxruntime"', r"install it with: pip install 'trivet-backend-onnx\[cpu\]'"),
            ("instance_group { kind: KIND_GPU gpus: [9] count: 1 }", "GPU"),
            ("version_policy { specific { versions: [9] } }", "version"),
        ],
    )
    async def test_a_bad_model_says_why_and_leaves_its_neighbour_alone(
        self, repository: Repository, config: str, reason: str
    ) -> None:
        repository.add("good")
        repository.add("bad", config)
        async with repository.serve(allow_failures=True, model_control_mode="explicit", load_models=["*"]) as engine:
            assert await ask(engine, "good") == [2.0]
            assert not engine.model_ready("bad")
            with pytest.raises(TrivetError, match=reason):
                await engine.load("bad")

    async def test_strict_readiness_waits_for_every_model(self, repository: Repository) -> None:
        repository.add("good")
        repository.add("bad", FAILS)
        async with repository.serve(allow_failures=True) as strict:
            assert not strict.ready
        async with repository.serve(allow_failures=True, strict_readiness=False) as lenient:
            assert lenient.ready

    async def test_a_failed_model_shows_its_reason_in_the_index(self, repository: Repository) -> None:
        repository.add("bad", FAILS)
        async with repository.serve(allow_failures=True) as engine:
            [entry] = await engine.repository_index()
            assert (entry.version, entry.state) == ("1", "UNAVAILABLE")
            assert "no room for this instance" in entry.reason
            assert await engine.repository_index(ready_only=True) == []

    async def test_a_version_that_failed_is_no_longer_missed_when_it_is_gone(self, repository: Repository) -> None:
        repository.add("many", "version_policy { all {} }", v1=1.0)
        async with repository.serve(model_control_mode="explicit", load_models=["*"]) as engine:
            repository.add("many", v2=2.0)
            (repository.path / "many" / "2" / "model.arith").write_text("no number")
            with pytest.raises(InvalidArgumentError, match="version 2 is at UNAVAILABLE state"):
                await engine.load("many")
            assert await ask(engine, "many") == [1.0]
            assert not engine.ready
            shutil.rmtree(repository.path / "many" / "2")
            await engine.load("many")
            assert engine.ready
            states = [(entry.version, entry.state, entry.reason) for entry in await engine.repository_index()]
            assert states == [("1", "READY", ""), ("2", "UNAVAILABLE", "unloaded")]

    async def test_what_a_configuration_is_completed_from_is_the_version_that_is_blamed(
        self, repository: Repository
    ) -> None:
        config = 'version_policy { all {} } parameters { key: "fail" value { string_value: "complete" } }'
        repository.add("many", config, v1=1.0, v2=2.0)
        async with repository.serve(model_control_mode="explicit") as engine:
            with pytest.raises(
                InvalidArgumentError, match=r"'many': version 2 is at UNAVAILABLE state: Internal: .*;$"
            ):
                await engine.load("many")
            reasons = {entry.version: entry.reason for entry in await engine.repository_index()}
            assert reasons["1"] == "another version of the model failed to load"
            assert "its file says nothing" in reasons["2"]


class TestStopping:
    async def test_draining_refuses_new_requests_and_finishes_old_ones(self, engine: Engine, journal: Journal) -> None:
        with journal.gate:
            old = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            engine.begin_drain()
            assert not engine.ready
            with pytest.raises(UnavailableError, match="stopping"):
                await ask(engine)
            assert await engine.drained(timeout_s=0) == 1
        assert await engine.drained(timeout_s=30) == 0
        assert await old == [2.0]

    async def test_draining_waits_for_what_a_reload_replaced(
        self, engine: Engine, repository: Repository, journal: Journal
    ) -> None:
        with journal.gate:
            old = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            repository.add("double", v1=30.0)
            await engine.load("double")
            engine.begin_drain()
            assert await engine.drained(timeout_s=0) == 1
        assert await engine.drained(timeout_s=30) == 0
        assert await old == [2.0]

    async def test_stopping_answers_what_is_left(self, engine: Engine, journal: Journal) -> None:
        answers: list[InferenceResponse] = []
        with journal.gate:
            engine.submit(request(on_response=lambda _, response: answers.append(response)))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            stopping = asyncio.ensure_future(engine.stop())
            await asyncio.sleep(0)
            assert [answer.error and answer.error.code for answer in answers] == [Code.UNAVAILABLE]
        await stopping
