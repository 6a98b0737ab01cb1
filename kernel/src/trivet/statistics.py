"""Counters and durations per model version, all read off one set of timestamps per request.

Source: Triton's statistics extension. Everything is written on the event loop, so nothing is locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING

from trivet.errors import Code
from trivet.histogram import PENDING, Histogram

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest, InferenceResponse


MOST_RESPONSES = 4096
"""Responses of one request that have statistics of their own, by their place; those beyond are counted with the last of
these. Otherwise one long stream would cost memory, and every look at the statistics, until its model is unloaded."""


BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of the buckets for batch sizes."""


class FailureReason(Enum):
    """Why a request failed; the values are those of the label ``reason`` of Triton's metrics."""

    REJECTED = "REJECTED"
    """By the queue: it was full, or the request waited too long."""
    CANCELED = "CANCELED"
    """Its caller gave it up."""
    BACKEND = "BACKEND"
    """While it was executed."""
    OTHER = "OTHER"


class Duration:
    """How often something happened and how long it took together, in nanoseconds."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int) -> None:
        """It happened once more, and took that many nanoseconds."""
        self.count += 1
        self.ns += ns

    def __repr__(self) -> str:
        return f"Duration(count={self.count}, ns={self.ns})"


class BatchStatistics:
    """Executions of one batch size. Durations count executions, not requests."""

    __slots__ = ("compute_infer", "compute_input", "compute_output")

    def __init__(self) -> None:
        self.compute_input = Duration()
        self.compute_infer = Duration()
        self.compute_output = Duration()


class ResponseStatistics:
    """Responses of a decoupled model at one index of the stream; see ``MOST_RESPONSES``."""

    __slots__ = ("cancel", "compute_infer", "compute_output", "empty_response", "fail", "success")

    def __init__(self) -> None:
        self.compute_infer = Duration()
        self.compute_output = Duration()
        self.success = Duration()
        self.fail = Duration()
        self.empty_response = Duration()
        self.cancel = Duration()


class ModelStatistics:
    """The statistics of one model version since it was loaded."""

    __slots__ = (
        "batches",
        "cache_hit",
        "cache_miss",
        "compute_infer",
        "compute_input",
        "compute_output",
        "execution_count",
        "fail",
        "failures",
        "inference_count",
        "last_inference_ms",
        "name",
        "queue",
        "queue_times",
        "request_times",
        "responses",
        "success",
        "version",
    )

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.last_inference_ms = 0
        """When the last inference finished, in milliseconds since the epoch; 0 for never."""
        self.inference_count = 0
        """Inferences; a request of batch size 8 counts 8, one that the response cache answers counts nothing."""
        self.execution_count = 0
        """Executions; one that served many requests counts 1."""
        self.success = Duration()
        self.fail = Duration()
        self.failures = dict.fromkeys(FailureReason, 0)
        """The failed requests by reason."""
        self.queue = Duration()
        self.compute_input = Duration()
        self.compute_infer = Duration()
        self.compute_output = Duration()
        self.cache_hit = Duration()
        self.cache_miss = Duration()
        self.batches: dict[int, BatchStatistics] = {}
        self.responses: dict[str, ResponseStatistics] = {}
        self.request_times = Histogram()
        """Of the requests that ``success`` counts, how long each took."""
        self.queue_times = Histogram()
        """Of the same requests, how long each waited in the queue."""

    def batch_sizes(self) -> tuple[list[int], int]:
        """How many executions there were in each bucket of :data:`BATCH_SIZES` alone, and the sum of their sizes.

        The last is what is above all bounds. Read off the statistics by batch size, so that no request pays for it.
        """
        counts, total = [0] * (len(BATCH_SIZES) + 1), 0
        for size, batch in self.batches.items():
            count = batch.compute_infer.count
            counts[bisect_left(BATCH_SIZES, size)] += count
            total += size * count
        return counts, total

    def request_succeeded(self, request: InferenceRequest, end_ns: int) -> None:
        """Count one answered request: its whole time, and the four parts that the timestamps bound."""
        # Every request comes through here: adding by hand costs half of what calls to Duration.add would.
        start_ns, input_ns, infer_ns = request.compute_start_ns, request.input_end_ns, request.infer_end_ns
        total_ns = end_ns - request.received_ns
        part = self.success
        part.count += 1
        part.ns += total_ns
        queue_ns = start_ns - request.queued_ns
        part = self.queue
        part.count += 1
        part.ns += queue_ns
        part = self.compute_input
        part.count += 1
        part.ns += input_ns - start_ns
        part = self.compute_infer
        part.count += 1
        part.ns += infer_ns - input_ns
        part = self.compute_output
        part.count += 1
        part.ns += request.compute_end_ns - infer_ns
        self.inference_count += request.batch_size
        self._distribute(request, total_ns, queue_ns)

    def request_hit(self, request: InferenceRequest, lookup_start_ns: int, lookup_ns: int, end_ns: int) -> None:
        """Count one request that the response cache answered: as Triton does, not among the inferences."""
        total_ns, queue_ns = end_ns - request.received_ns, lookup_start_ns - request.queued_ns
        self.success.add(total_ns)
        self.queue.add(queue_ns)
        self.cache_hit.add(lookup_ns)
        request.cache_ns = lookup_ns
        self._distribute(request, total_ns, queue_ns)

    def request_missed(self, request: InferenceRequest, end_ns: int, cache_ns: int) -> None:
        """Count one answered request that the response cache did not know, and its lookup and insertion."""
        self.request_succeeded(request, end_ns)
        self.cache_miss.add(cache_ns)
        request.cache_ns = cache_ns

    def _distribute(self, request: InferenceRequest, total_ns: int, queue_ns: int) -> None:
        totals, queued = self.request_times, self.queue_times
        pending = totals.pending
        pending.append(total_ns)
        queued.pending.append(queue_ns)
        if len(pending) >= PENDING:
            totals.sort()
            queued.sort()
        if request.trace_context is not None:
            totals.exemplify(total_ns, request.trace_context)
            queued.exemplify(queue_ns, request.trace_context)

    def request_failed(self, request: InferenceRequest, end_ns: int, reason: FailureReason) -> None:
        """Count one request that ended in an error, a rejection or a cancellation."""
        self.fail.add(end_ns - request.received_ns)
        self.failures[reason] += 1

    def responded(self, request: InferenceRequest, response: InferenceResponse, now_ns: int) -> None:
        """Count one response of a decoupled model, by its place among those of its request.

        Its inference began with the request's, or with the response before it, and ended when the model gave it; what
        came after, until ``now_ns``, is its output. Source: Triton's statistics extension, "response_stats".
        """
        key = str(min(request.responses, MOST_RESPONSES - 1))
        statistics = self.responses.get(key)
        if statistics is None:
            statistics = self.responses[key] = ResponseStatistics()
        made_ns = response.made_ns or now_ns
        start_ns = request.responded_ns or request.compute_start_ns or made_ns
        request.responses += 1
        request.responded_ns = made_ns
        duration_ns = now_ns - start_ns
        if response.error is not None and response.error.code is Code.CANCELLED:
            statistics.cancel.add(duration_ns)
            return
        if response.error is None and not response.outputs:
            statistics.empty_response.add(duration_ns)
            return
        statistics.compute_infer.add(made_ns - start_ns)
        if response.error is None:
            statistics.compute_output.add(now_ns - made_ns)
            statistics.success.add(duration_ns)
        else:
            statistics.fail.add(duration_ns)

    def executed(self, requests: Sequence[InferenceRequest]) -> None:
        """Count one execution that answered ``requests``, whose timestamps agree."""
        self.last_inference_ms = time_ns() // 1_000_000
        self.execution_count += 1
        first = requests[0]
        size = first.batch_size if len(requests) == 1 else sum(request.batch_size for request in requests)
        batch = self.batches.get(size)
        if batch is None:
            batch = self.batches[size] = BatchStatistics()
        input_ns, infer_ns, end_ns = first.input_end_ns, first.infer_end_ns, first.compute_end_ns
        if not infer_ns:
            # A model that answers later has only just returned: that is all there is of this execution.
            infer_ns = perf_counter_ns()
        part = batch.compute_input
        part.count += 1
        part.ns += input_ns - first.compute_start_ns
        part = batch.compute_infer
        part.count += 1
        part.ns += infer_ns - input_ns
        part = batch.compute_output
        part.count += 1
        part.ns += max(end_ns - infer_ns, 0)
