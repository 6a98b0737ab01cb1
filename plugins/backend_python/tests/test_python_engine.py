"""Models written as people write them for Triton, served by an engine."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError
from trivet.inference import InferenceRequest, RequestedOutput
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_python import plugin

MODELS = Path(__file__).parent / "models"

pytestmark = pytest.mark.anyio


def serve(repository, *models):
    return running_engine(
        repository, registry=PluginRegistry.of(python=plugin), model_control_mode="explicit", load_models=models
    )


@pytest.fixture
def repository(tmp_path):
    return shutil.copytree(MODELS, tmp_path / "models")


def request(model, *, outputs=None, parameters=None, **arrays):
    inputs = {}
    for name, array in arrays.items():
        tensor = Tensor.from_numpy(name, array)
        inputs[name] = Tensor.from_wire(name, tensor.datatype, tensor.shape, bytes(tensor.wire()))
    requested = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferenceRequest(model, inputs, outputs=requested, parameters=parameters or {})


async def infer(engine, model, **given):
    response = await engine.infer(request(model, **given))
    if response.error is not None:
        raise response.error
    return {tensor.name: tensor.numpy() for tensor in response.outputs}


async def test_add_sub(repository, caplog):
    caplog.set_level(logging.INFO)
    a, b = np.ones((2, 4), np.float32), np.full((2, 4), 3, np.float32)
    async with serve(repository, "add_sub") as engine:
        result = await infer(engine, "add_sub", INPUT0=a, INPUT1=b)
        assert result["OUTPUT0"].tolist() == (a + b).tolist()
        assert result["OUTPUT1"].tolist() == (a - b).tolist()
        assert result["OUTPUT1"].dtype == np.float16
        assert list(await infer(engine, "add_sub", INPUT0=a, INPUT1=b, outputs=["OUTPUT1"])) == ["OUTPUT1"]
    assert sum(record.getMessage() == "add_sub is done" for record in caplog.records) == 2


async def test_many_requests_over_two_instances(repository):
    async with serve(repository, "add_sub") as engine:
        arrays = [np.full((1, 4), value, np.float32) for value in range(200)]
        results = await asyncio.gather(*(infer(engine, "add_sub", INPUT0=x, INPUT1=x) for x in arrays))
    assert [result["OUTPUT0"][0, 0] for result in results] == [2 * value for value in range(200)]


async def test_strings_and_a_configuration_that_the_model_completes(repository):
    async with serve(repository, "upper") as engine:
        config = engine.model("upper").config
        assert config.max_batch_size == 16
        text = np.array([["grüße".encode(), b"x"]], dtype=object)
        result = await infer(engine, "upper", TEXT=text)
        assert result["UPPER"].tolist() == [["GRÜSSE!".encode(), b"X!"]]
        assert result["LENGTH"].tolist() == [[7, 2]]
        with pytest.raises(InvalidArgumentError, match="TEXT is empty"):
            await infer(engine, "upper", TEXT=np.empty((1, 0), dtype=object))


async def test_in_place_work_reshape_and_parameters(repository):
    x = np.array([[1, 2, 3]], dtype=np.float32)
    async with serve(repository, "standardize") as engine:
        response = await engine.infer(request("standardize", X=x, parameters={"kept": "yes"}))
    assert response.outputs[0].numpy().tolist() == [[-2, 0, 2]]
    assert dict(response.parameters) == {"kept": "yes"}


async def test_images(repository):
    image_module = pytest.importorskip("PIL.Image")
    encoded = io.BytesIO()
    image_module.new("RGB", (20, 10), (255, 0, 0)).save(encoded, "PNG")
    data = np.frombuffer(encoded.getvalue(), np.uint8)[None]
    async with serve(repository, "thumbnail") as engine:
        pixels = (await infer(engine, "thumbnail", IMAGE=data))["PIXELS"]
    np.testing.assert_allclose(pixels[0, :, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


async def test_a_broken_request_leaves_the_model_alone(repository):
    pytest.importorskip("PIL.Image")
    async with serve(repository, "thumbnail") as engine:
        with pytest.raises(InternalError, match=r"'thumbnail_0.*', message: UnidentifiedImageError: cannot identify"):
            await infer(engine, "thumbnail", IMAGE=np.zeros((1, 5), np.uint8))
        assert engine.model_ready("thumbnail")


async def test_responses_from_a_models_own_threads(repository):
    async with serve(repository, "repeat") as engine:
        received = []
        done = asyncio.Event()

        def on_response(_, response):
            received.append(response)
            if response.final:
                done.set()

        asked = request("repeat", IN=np.array([4, 5, 6], np.int32))
        asked.on_response = on_response
        engine.submit(asked)
        await done.wait()
    assert [response.outputs[0].numpy().item() for response in received[:3]] == [4, 5, 6]
    assert [response.final for response in received] == [False, False, False, True]


async def test_a_model_that_calls_another(repository):
    a = np.ones((1, 4), np.float32)
    async with serve(repository, "add_sub", "pipeline") as engine:
        assert (await infer(engine, "pipeline", INPUT0=a, INPUT1=a))["OUTPUT0"].tolist() == (4 * a).tolist()
        nobody = np.array([[b"nobody"]], dtype=object)
        with pytest.raises(NotFoundError, match="nobody"):
            await infer(engine, "pipeline", INPUT0=a, INPUT1=a, MODEL=nobody)


async def test_reload_and_unload(repository):
    path = repository / "upper" / "1" / "text_tools.py"
    text = np.array([[b"a"]], dtype=object)
    async with serve(repository, "upper") as engine:
        assert (await infer(engine, "upper", TEXT=text))["UPPER"] == b"A!"
        path.write_text(path.read_text().replace('"!"', '"?"'))
        await engine.load("upper")
        assert (await infer(engine, "upper", TEXT=text))["UPPER"] == b"A?"
        path.write_text("syntax error")
        with pytest.raises(InvalidArgumentError, match="SyntaxError"):
            await engine.load("upper")
        assert (await infer(engine, "upper", TEXT=text))["UPPER"] == b"A?"
        await engine.unload("upper")
        assert not engine.model_ready("upper")
