"""An answer that a protocol cannot write still reaches whoever asked, as an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from arithmetic_backend import ArithmeticPlugin
from trivet.engine import Engine
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio


def ask(engine: Engine, on_response: object) -> None:
    x = Tensor.from_numpy("x", np.ones(3, np.float32))
    engine.submit(InferenceRequest("m", {"x": x}, on_response=on_response))  # type: ignore[arg-type]


async def test_a_response_that_cannot_be_written_becomes_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.arith").write_text("2")
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=ArithmeticPlugin())) as engine:
        written: list[InferenceResponse] = []
        observed: list[InferenceResponse] = []

        def refuse(request: InferenceRequest, response: InferenceResponse) -> None:
            if response.error is None:
                raise BufferError("no room")
            written.append(response)

        def break_down(request: InferenceRequest, response: InferenceResponse) -> None:
            raise RuntimeError("observers must not raise")

        engine.on_finished += [break_down, lambda _, response: observed.append(response)]
        ask(engine, refuse)
        assert await engine.drained(30) == 0
    (response,) = written
    assert str(response.error) == "the response of model 'm' cannot be sent: BufferError: no room"
    assert response.final
    assert observed == written
    assert "observers must not raise" in caplog.text
