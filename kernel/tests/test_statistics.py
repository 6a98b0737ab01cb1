"""What the statistics of a model version cost."""

from __future__ import annotations

import numpy as np
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.statistics import MOST_RESPONSES, ModelStatistics
from trivet.tensor import Tensor


def test_a_long_stream_costs_no_more_than_a_short_one() -> None:
    statistics = ModelStatistics("m", "1")
    y = Tensor.from_numpy("y", np.zeros(1, np.float32))
    for _ in range(2):
        request = InferenceRequest("m", {})
        for number in range(MOST_RESPONSES + 10):
            statistics.responded(request, InferenceResponse([y], final=False), now_ns=number)
        assert request.responses == MOST_RESPONSES + 10
    assert len(statistics.responses) == MOST_RESPONSES
    assert statistics.responses["0"].success.count == 2
    assert statistics.responses[str(MOST_RESPONSES - 1)].success.count == 2 * 11
