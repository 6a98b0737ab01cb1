"""Models that load and unload models, and ask whether they are ready."""

from __future__ import annotations

import asyncio

import pytest
from bls_models import CONFIG, SHARED, infer, serve, unloaded
from trivet.errors import InternalError, InvalidArgumentError

pytestmark = pytest.mark.anyio


class TestControl:
    async def test_a_model_loads_and_unloads_another(self, repository):
        repository.double()
        repository.add(
            "control",
            """
            found = [pb_utils.is_model_ready("double")]
            pb_utils.load_model("double")
            found += [pb_utils.is_model_ready("double", "1"), values(request("double", [4]).exec())[0]]
            pb_utils.unload_model("double", unload_dependents=True)
            found += [pb_utils.is_model_ready("double"), request("double", [4]).exec().has_error()]
            return [answer(found)]
            """,
        )
        async with serve(repository, load_models=["control"]) as engine:
            assert await infer(engine, "control", 0) == [0, 1, 8, 0, 1]

    async def test_in_initialize_while_the_server_starts(self, repository):
        repository.double()
        for i in range(6):
            repository.add(
                f"needs_{i}",
                'return [answer(values(request("double", given(r)).exec())) for r in requests]',
                extra="def initialize(self, args): pb_utils.load_model('double')",
            )
        async with serve(repository, load_models=[f"needs_{i}" for i in range(6)]) as engine:
            assert await infer(engine, "needs_5", 1) == [2]

    async def test_two_that_load_each_other(self, repository):
        for name, other in (("a", "b"), ("b", "a"), ("self", "self")):
            repository.add(name, "return []", extra=f"def initialize(self, args): pb_utils.load_model('{other}')")
        async with serve(repository, load_models=[]) as engine:
            for name in ("a", "self"):
                with pytest.raises(InvalidArgumentError, match="they would wait for each other"):
                    await asyncio.wait_for(engine.load(name), 30)

    async def test_of_itself(self, repository):
        repository.add(
            "selfish",
            """
            pb_utils.unload_model("selfish")
            ready = pb_utils.is_model_ready("selfish")
            return [answer([ready])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "selfish", 0) == [0]

    async def test_in_finalize(self, repository):
        repository.double()
        repository.add("last", "return []", extra="def finalize(self): pb_utils.unload_model('double')")
        async with serve(repository) as engine:
            gone = unloaded(engine, "double")
            await engine.unload("last")
            await asyncio.wait_for(gone.wait(), 30)

    async def test_errors_are_the_servers(self, repository):
        repository.add(
            "control",
            """
            try:
                pb_utils.load_model("nobody")
            except pb_utils.TritonModelException as error:
                SHARED["message"] = str(error)
            pb_utils.unload_model("nobody")
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "control", 0)
        assert (
            SHARED["message"] == "Failed to load model: failed to load 'nobody', failed to poll from model repository"
        )

    async def test_a_version_that_is_no_number(self, repository):
        repository.add("asks", 'return [answer([pb_utils.is_model_ready("asks", "x")])]')
        async with serve(repository) as engine:
            with pytest.raises(
                InternalError, match=r"Failed to check model readiness: .* specified version string 'x'"
            ):
                await infer(engine, "asks", 0)

    async def test_needs_explicit_control(self, repository):
        repository.add("control", "pb_utils.load_model('control')")
        async with serve(repository, model_control_mode="none", load_models=()) as engine:
            with pytest.raises(
                InternalError, match="Failed to load model: explicit model load / unload is not allowed"
            ):
                await infer(engine, "control", 0)

    async def test_not_while_the_file_is_imported(self, repository):
        folder = repository.path / "early" / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text("import triton_python_backend_utils as p\np.load_model('x')")
        (repository.path / "early" / "config.pbtxt").write_text(CONFIG)
        async with serve(repository, load_models=[]) as engine:
            with pytest.raises(InvalidArgumentError, match="not while a model's file is imported"):
                await engine.load("early")
