"""Models and repositories that do what nobody should: one bad model costs itself, never its neighbours."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from trivet import hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
    RequestInstance,
)
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, UnavailableError
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.lifecycle import ModelEvent
from trivet.logs import JsonFormatter
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def misbehave(wanted: str, here: str) -> None:
    """Do what the model's file says, ``PLACE:DEED``, if this is the place."""
    place, _, deed = wanted.partition(":")
    if place != here:
        return
    if deed == "exit":
        sys.exit(3)
    if deed == "nothing":
        return
    if deed == "chdir":
        os.chdir("/")
        raise OSError("in another folder")
    if deed == "surrogate":
        raise InvalidArgumentError("no such file: caf\udce9")
    raise {"interrupt": KeyboardInterrupt, "speechless": SpeechlessError, "stop": StopIteration}[deed]


class Model(BackendModel):
    def __init__(self, deed: str) -> None:
        self.deed = deed

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        misbehave(self.deed, "create")
        return Answerer(self.deed) if self.deed.startswith("answer") else Doubler(self.deed)

    def close(self) -> None:
        misbehave(self.deed, "close")


class Doubler(ArrayInstance):
    def __init__(self, deed: str) -> None:
        self.deed = deed

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        misbehave(self.deed, "execute")
        return {"y": inputs["x"].numpy() * np.float32(2)}

    def close(self) -> None:
        misbehave(self.deed, "close_instance")


class Answerer(RequestInstance):
    def __init__(self, deed: str) -> None:
        self.deed = deed.removeprefix("answer:")

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None]:
        if self.deed == "respond with something else":
            for request in requests:
                request.respond({"y": 1})  # type: ignore[arg-type]
        if self.deed == "return something else":
            return [{"y": 1} for _ in requests]  # type: ignore[misc]
        return [InferenceResponse([Tensor.from_numpy("y", 2 * request.inputs["x"].numpy())], final=False)
                for request in requests]  # fmt: skip


class UnrulyBackend(Backend):
    def auto_complete(self, context: ModelContext) -> None:
        misbehave(deed_of(context), "complete")
        context.config.input.add(name="x", data_type="TYPE_FP32", dims=[-1])
        context.config.output.add(name="y", data_type="TYPE_FP32", dims=[-1])

    def load(self, context: ModelContext) -> BackendModel:
        misbehave(deed_of(context), "load")
        if deed_of(context) == "load:nothing":
            return None  # type: ignore[return-value]
        return Model(deed_of(context))


def deed_of(context: ModelContext) -> str:
    return (context.version_path / "model.unruly").read_text()


class UnrulyPlugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="unruly", factory=lambda *_: UnrulyBackend(), model_filenames=("model.unruly",))]


REGISTRY = PluginRegistry.of(unruly=UnrulyPlugin())


def add(root: Path, name: str, deed: str = "none") -> Path:
    (root / name / "1").mkdir(parents=True)
    (root / name / "1" / "model.unruly").write_text(deed)
    return root / name


async def double(engine: Engine, model: str = "good") -> list[float]:
    request = InferenceRequest(model, {"x": Tensor.from_numpy("x", np.array([1, 2], np.float32))})
    response = await engine.infer(request)
    if response.error is not None:
        raise response.error
    return response.outputs[0].numpy().tolist()


@pytest.mark.parametrize("deed", ["exit", "interrupt", "speechless", "stop"])
@pytest.mark.parametrize("place", ["complete", "load", "create"])
async def test_a_model_that_cannot_load_says_why_and_others_serve(tmp_path: Path, place: str, deed: str) -> None:
    add(tmp_path, "good")
    add(tmp_path, "bad", f"{place}:{deed}")
    async with running_engine(tmp_path, registry=REGISTRY, allow_failures=True) as engine:
        reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
        name = {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "stop": "StopIteration"}
        assert name.get(deed, "SpeechlessError") in reasons["bad"]
        assert await double(engine) == [2, 4]


async def test_a_backend_that_loads_nothing_is_named(tmp_path: Path) -> None:
    add(tmp_path, "good")
    add(tmp_path, "bad", "load:nothing")
    async with running_engine(tmp_path, registry=REGISTRY, allow_failures=True) as engine:
        reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
        assert "backend 'unruly' gave None for model 'bad', expected a BackendModel" in reasons["bad"]
        assert await double(engine) == [2, 4]


@pytest.mark.parametrize("deed", ["exit", "interrupt", "speechless", "stop"])
async def test_an_execution_that_ends_oddly_fails_its_request_only(tmp_path: Path, deed: str) -> None:
    add(tmp_path, "good")
    add(tmp_path, "bad", f"execute:{deed}")
    async with running_engine(tmp_path, registry=REGISTRY) as engine:
        for _ in range(2):
            with pytest.raises(InternalError, match="model instance 'bad_0' failed"):
                await double(engine, "bad")
        assert await double(engine) == [2, 4]


@pytest.mark.parametrize("deed", ["respond with something else", "return something else"])
async def test_an_answer_that_is_no_response_fails_its_request(tmp_path: Path, deed: str) -> None:
    add(tmp_path, "bad", f"answer:{deed}")
    async with running_engine(tmp_path, registry=REGISTRY) as engine:
        with pytest.raises(InternalError, match="a model answered with a dict, expected an InferenceResponse"):
            await double(engine, "bad")


async def test_a_response_that_is_returned_is_final_whatever_it_says(tmp_path: Path) -> None:
    add(tmp_path, "bad", "answer:not final")
    async with running_engine(tmp_path, registry=REGISTRY) as engine:
        assert await double(engine, "bad") == [2, 4]


@pytest.mark.parametrize("place", ["close", "close_instance"])
async def test_a_model_that_exits_when_it_is_closed_is_gone_all_the_same(tmp_path: Path, place: str) -> None:
    add(tmp_path, "good")
    add(tmp_path, "bad", f"{place}:exit")
    async with running_engine(tmp_path, registry=REGISTRY, model_control_mode="explicit", load_models=["*"]) as engine:
        for _ in range(2):
            assert await double(engine, "bad") == [2, 4]
            await engine.unload("bad")
            await engine.load("bad")
        assert await double(engine) == [2, 4]


async def test_a_folder_whose_name_is_no_text_is_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "good")
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102 - pathlib takes no bytes
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    with caplog.at_level(logging.WARNING):
        async with running_engine(tmp_path, registry=REGISTRY) as engine:
            for _ in range(2):
                assert [entry.name for entry in await engine.repository_index()] == ["good"]
            assert await double(engine) == [2, 4]
    assert [record.getMessage() for record in caplog.records if "not UTF-8" in record.getMessage()] == [
        f"folder {str(tmp_path) + '/caf' + chr(0xDCE9)!r} is not served: its name is not UTF-8; rename it"
    ]


async def test_a_name_that_no_folder_can_have_is_not_found(tmp_path: Path) -> None:
    add(tmp_path, "good")
    async with running_engine(tmp_path, registry=REGISTRY, model_control_mode="explicit") as engine:
        for name in ("x" * 300, "\ud800", "..", "a\0b"):
            with pytest.raises(InternalError, match="failed to load"):
                await engine.load(name)
        assert [entry.name for entry in await engine.repository_index()] == ["good"]


async def test_a_model_that_changes_the_current_folder_leaves_the_repository_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "models", "good")
    add(tmp_path / "models", "bad", "execute:chdir")
    monkeypatch.chdir(tmp_path)
    async with running_engine("models", registry=REGISTRY, model_control_mode="explicit", load_models=["*"]) as engine:
        with pytest.raises(InternalError, match="model instance 'bad_0' failed"):
            await double(engine, "bad")
        await engine.load("good")
        assert await double(engine) == [2, 4]


async def test_a_repository_that_goes_away_leaves_what_is_loaded(tmp_path: Path) -> None:
    root = tmp_path / "models"
    add(root, "good")
    async with running_engine(root, registry=REGISTRY, model_control_mode="explicit", load_models=["*"]) as engine:
        root.rename(tmp_path / "elsewhere")
        with pytest.raises(UnavailableError, match="cannot read model repository"):
            await engine.repository_index()
        with pytest.raises(InternalError, match="failed to poll"):
            await engine.load("good")
        assert await double(engine) == [2, 4]


async def test_an_observer_that_fails_does_not_stop_a_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "good")

    def watch(event: ModelEvent) -> None:
        raise RuntimeError("not today")

    async with running_engine(tmp_path, registry=REGISTRY, model_control_mode="explicit") as engine:
        engine.on_model_event.append(watch)
        await engine.load("good")
        assert await double(engine) == [2, 4]
    assert "failed on model 'good'" in caplog.text


@pytest.mark.parametrize(
    "files",
    [
        {"1": b"a file", "1/model.unruly": b"and its folder"},
        {"x" * 300: b""},
        {"1/" + "x/" * 1000 + "y": b""},
        {"1/\ud800": b""},
        {"1/model.unruly": b"complete:exit"},
        {"1/model.unruly": b"load:exit"},
        {"1/model.unruly": b"create:exit"},
        {"nothing": b"of a model"},
    ],
    ids=["file-and-folder", "long-name", "deep", "no-text", "complete", "load", "create", "no-version"],
)
async def test_files_of_a_load_that_fails_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    root = tmp_path / "models"
    add(root, "good")
    async with running_engine(
        root, registry=REGISTRY, model_control_mode="explicit", load_models=["*"], model_load_retry_count=1
    ) as engine:
        with pytest.raises(TrivetError):
            await engine.load("good", config='{"backend": "unruly"}', files=files)
        assert list(temporary.iterdir()) == []
        assert await double(engine) == [2, 4]


async def test_loading_again_finds_the_files_of_the_request(tmp_path: Path) -> None:
    """The first attempt must not take the folder with it that the second one reads."""
    add(tmp_path, "good")
    async with running_engine(
        tmp_path, registry=REGISTRY, model_control_mode="explicit", load_models=["*"], model_load_retry_count=2
    ) as engine:
        with pytest.raises(InvalidArgumentError, match="SystemExit: 3"):
            await engine.load("good", config='{"backend": "unruly"}', files={"1/model.unruly": b"load:exit"})


async def test_a_slip_in_the_number_of_instances_costs_that_model_only(tmp_path: Path) -> None:
    add(tmp_path, "good")
    (add(tmp_path, "greedy") / "config.pbtxt").write_text("instance_group { count: 1000000 kind: KIND_CPU }")
    async with running_engine(tmp_path, registry=REGISTRY, allow_failures=True) as engine:
        reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
        assert "wants 1000000 instances" in reasons["greedy"]
        assert await double(engine) == [2, 4]


async def test_a_reason_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    """What names a file that is not UTF-8 must not spoil the index of all models."""
    add(tmp_path, "bad", "load:surrogate")
    async with running_engine(tmp_path, registry=REGISTRY, allow_failures=True) as engine:
        (entry,) = await engine.repository_index()
        assert entry.reason == "Invalid argument: no such file: caf\\udce9"


def test_an_exception_without_words_is_logged() -> None:
    error = SpeechlessError()
    record = logging.LogRecord("trivet", logging.ERROR, __file__, 1, "failed", (), (SpeechlessError, error, None))
    assert "<this exception has no text>" in JsonFormatter().format(record)
