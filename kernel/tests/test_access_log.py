"""A line for each inference request, for people and for machines."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from arithmetic_backend import ArithmeticPlugin
from trivet import access_log
from trivet.errors import NotFoundError
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio


def request(value: float, model: str = "double", **fields: object) -> InferenceRequest:
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", np.array([value], np.float32))}, **fields)  # type: ignore[arg-type]


async def test_each_request_leaves_a_line_however_it_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "double" / "1").mkdir(parents=True)
    (tmp_path / "double" / "1" / "model.arith").write_text("2")
    async with running_engine(tmp_path, registry=PluginRegistry.of(arithmetic=ArithmeticPlugin())) as engine:
        access_log.install(engine)
        with caplog.at_level(logging.INFO, access_log.logger.name):
            traced = request(1, id="7")
            traced.trace_context = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            await engine.infer(traced)
            await engine.infer(request(-1))
            await engine.infer(request(1, id="8 status=internal\nb"))
            with pytest.raises(NotFoundError):
                engine.submit(request(1, "nobody"))
    served, failed, quoted, refused = [record for record in caplog.records if record.name == access_log.logger.name]
    fields = vars(served)
    assert (fields["model"], fields["version"], fields["request_id"], fields["status"]) == ("double", "1", "7", "ok")
    assert fields["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert fields["duration_us"] >= fields["compute_us"] >= 0
    assert served.getMessage().startswith("model=double version=1 request_id=7 status=ok duration_us=")
    assert "status=internal" in failed.getMessage()
    assert "negative input" in failed.getMessage()
    assert quoted.getMessage().startswith(r"model=double version=1 request_id='8 status=internal\nb' status=ok ")
    assert vars(quoted)["request_id"] == "8 status=internal\nb"
    assert refused.getMessage() == (
        "model=nobody status='not found' error=\"Request for unknown model: 'nobody' is not found\""
    )
