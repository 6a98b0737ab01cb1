"""What the statistics of a model version cost, and what they say of unusual requests."""

from __future__ import annotations

from time import perf_counter_ns

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


def test_an_execution_whose_requests_are_answered_later_lasts_until_it_returns() -> None:
    statistics = ModelStatistics("m", "1")
    request = InferenceRequest("m", {})
    request.compute_start_ns = request.input_end_ns = perf_counter_ns()
    statistics.executed((request,))
    batch = statistics.batches[1]
    assert 0 < batch.compute_infer.ns <= perf_counter_ns() - request.compute_start_ns
    assert batch.compute_output.ns == 0
