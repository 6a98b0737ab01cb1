"""Typed models that yield any number of results, and that call other models."""

from __future__ import annotations

import asyncio
import textwrap
import threading
from collections.abc import AsyncIterator, Generator, Iterator

import numpy as np
import pytest
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError
from trivet.inference import InferenceRequest, RequestedOutput
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_python import Array, Float32, Int64, Text, call, model, plugin, stream

pytestmark = pytest.mark.anyio

SHARED: dict[str, threading.Event] = {}

MODELS = {
    "count": """
        from collections.abc import Iterator

        @model
        def count(n: Int64, word: Text) -> Iterator[Array[Text, 1]]:
            for i in range(n):
                yield [f"{word} {i}"]
    """,
    "endless": f"""
        from collections.abc import Iterator
        from typing import NamedTuple
        from {__name__} import SHARED

        class Step(NamedTuple):
            index: Int64
            square: Int64

        @model
        class Endless:
            def __call__(self, start: Int64) -> Iterator[Step]:
                i = int(start)
                try:
                    while True:
                        if i == 1000:
                            raise ValueError("far enough")
                        yield Step(i, i * i)
                        i += 1
                finally:
                    SHARED["closed"].set()
    """,
    "double": """
        @model(max_batch_size=8)
        def double(x: Array[Float32, "n"]) -> Array[Float32, "n"]:
            return 2 * x
    """,
    "quadruple": """
        import numpy as np

        @model
        def quadruple(x: Array[Float32, "n"], model_name: Text) -> Array[Float32, "n"]:
            twice = call(str(model_name), {"x": x[np.newaxis]})["output"]
            twice += 0  # it is this model's own
            return call("double", {"x": twice}, outputs=["output"], version=1)["output"][0]
    """,
    "words": """
        @model
        def words(n: Int64) -> Array[Text, "n"]:
            return [found["output"][0].decode() for found in stream("count", {"n": [n], "word": ["w"]})]
    """,
    "first": """
        @model
        def first(start: Int64) -> Int64:
            for found in stream("endless", {"start": [start]}, outputs=["square"]):
                return found["square"][0]
    """,
}


@pytest.fixture
async def engine(tmp_path):
    SHARED["closed"] = threading.Event()
    imports = "from trivet_backend_python import Array, Float32, Int64, Text, call, model, stream\n"
    for name, source in MODELS.items():
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(imports + textwrap.dedent(source))
    async with running_engine(tmp_path, registry=PluginRegistry.of(python=plugin)) as running:
        yield running


def request(model, outputs=None, **inputs):
    tensors = {name: Tensor.from_numpy(name, np.asarray(value)) for name, value in inputs.items()}
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferenceRequest(model, tensors, outputs=wanted)


def text(value):
    return np.array([value.encode()], dtype=object)


async def responses(engine, asked, stop_after=None):
    received: asyncio.Queue[object] = asyncio.Queue()
    asked.on_response = lambda _, response: received.put_nowait(response)
    engine.submit(asked)
    found = []
    while True:
        response = await asyncio.wait_for(received.get(), 30)
        if response.error is not None:
            raise response.error
        found += [{tensor.name: tensor.numpy().tolist() for tensor in response.outputs}]
        if response.final:
            return found
        if len(found) == stop_after:
            engine.cancel(asked)
            return found


async def test_each_result_is_a_response(engine):
    assert engine.model("count").spec.decoupled
    found = await responses(engine, request("count", n=np.array([3]), word=text("é")))
    assert found == [{"output": [f"é {i}".encode()]} for i in range(3)] + [{}]


async def test_none_at_all(engine):
    assert await responses(engine, request("count", n=np.array([0]), word=text(""))) == [{}]


async def test_outputs_that_are_not_asked_for_are_left_out(engine):
    found = await responses(engine, request("endless", ["square"], start=np.array([3])), stop_after=2)
    assert found == [{"square": [9]}, {"square": [16]}]
    assert await asyncio.to_thread(SHARED["closed"].wait, 30)


async def test_a_failure_in_the_middle_ends_the_stream(engine):
    with pytest.raises(InternalError, match="model 'endless' failed: ValueError: far enough"):
        await responses(engine, request("endless", start=np.array([990])))


async def infer(engine, model, **inputs):
    response = await asyncio.wait_for(engine.infer(request(model, **inputs)), 30)
    if response.error is not None:
        raise response.error
    return response.outputs[0].numpy().tolist()


async def test_a_call(engine):
    x = np.array([1, 2], np.float32)
    assert await infer(engine, "quadruple", x=x, model_name=text("double")) == [4, 8]
    with pytest.raises(NotFoundError, match="nobody"):
        await infer(engine, "quadruple", x=x, model_name=text("nobody"))


async def test_iterating_over_another_models_responses(engine):
    assert await infer(engine, "words", n=np.array([2])) == [b"w 0", b"w 1"]


async def test_leaving_the_iteration_cancels_the_rest(engine):
    assert await infer(engine, "first", start=np.array([5])) == [25]
    assert await asyncio.to_thread(SHARED["closed"].wait, 30)


def test_outside_of_a_model():
    for use in (call, stream):
        with pytest.raises(InternalError, match="only in the code of a model"):
            use("double", {"x": [1]})


def test_a_configuration_that_says_otherwise(models):
    source = "from trivet_backend_python import Int64, model\n@model\ndef one(x: Int64) -> Int64: return x"
    with pytest.raises(InvalidArgumentError, match=r"decoupled of model 'one' is true .* its code returns one result"):
        models.run("one", source, 'backend: "python" model_transaction_policy { decoupled: true }')


def test_annotations_of_generators():
    def counting(x: Int64) -> Generator[Array[Float32, 2], None, None]:
        yield x

    assert model(counting).__trivet_model__.outputs[0].dims == (2,)

    def without(x: Int64) -> Int64:
        yield x

    assert model(without).__trivet_model__.streams

    def batched(x: Int64) -> Iterator[Int64]:
        yield x

    with pytest.raises(TypeError, match="one request at a time"):
        model(max_batch_size=2)(batched)

    async def concurrent(x: Int64) -> AsyncIterator[Text]:
        yield x

    with pytest.raises(TypeError, match="not async"):
        model(concurrent)
