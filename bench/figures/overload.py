"""Ten times the requests that MiniLM can answer: what is accepted stays fast, the rest is refused, memory stays.

Dynamic batching with a queue that is bounded in length and in time, on one instance of one thread. The client runs on
the same machine, so on few cores it takes some of the capacity.
"""

from __future__ import annotations

from bench import machine, servers
from bench.calls import Call
from bench.figures.minilm import tokens
from bench.http_load import Outcome, at_rate, in_flight
from bench.report import Report, at_most
from bench.repositories import SENTENCE_EMBEDDING, repository
from bench.servers import Server
from bench.settings import Settings

TIMES = 10
QUEUE = 32
QUEUE_MS = 200
"""A little more than a full queue takes at capacity."""
BATCH = 4
CONFIG = f"""
max_batch_size: {BATCH}
dynamic_batching {{
  default_queue_policy {{ max_queue_size: {QUEUE} default_timeout_microseconds: {QUEUE_MS * 1000} }}
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""
ACCEPTED, REFUSED = 200, 503


def run(settings: Settings, report: Report) -> None:
    call = Call("minilm", tokens(), "sentence_embedding")
    with repository() as models:
        models.onnx("minilm", SENTENCE_EMBEDDING, CONFIG)
        with servers.trivet(models.path) as server:
            # Buffers and connections are there once the first of it is over; growth after that would have no end.
            _overload(server, call, 1000, settings.seconds)
            for number in range(settings.rounds):
                print(f"  round {number + 1} of {settings.rounds}", flush=True)
                _round(server, call, settings, report)
                report.end_round()


def _round(server: Server, call: Call, settings: Settings, report: Report) -> None:
    seconds = settings.seconds
    unloaded = report.quietly(lambda: in_flight(server, [call], 1, seconds).only(ACCEPTED))
    full = report.quietly(lambda: in_flight(server, [call], 2 * BATCH, seconds).only(ACCEPTED, REFUSED))
    capacity = full.rate * full.share(ACCEPTED)
    before = machine.resident_bytes(server.pid)
    machine.reset_peak(server.pid)
    overload = report.quietly(lambda: _overload(server, call, TIMES * capacity, seconds))
    grown = machine.peak_resident_bytes(server.pid) - before
    allowed_ms = 2 * unloaded.p99_ms(ACCEPTED) + QUEUE_MS
    accepted_ms = overload.p99_ms(ACCEPTED)
    report.add("capacity", capacity, "inferences/s")
    report.add("unloaded p99", unloaded.p99_ms(ACCEPTED), "ms")
    report.add(f"p99 of what is accepted at {TIMES} x", accepted_ms, "ms")
    report.add("that, of twice the unloaded p99 plus the queue limit", accepted_ms / allowed_ms, "x", at_most(1))
    report.add("p99 of a refusal", overload.p99_ms(REFUSED), "ms")
    report.add("refused", 100 * overload.share(REFUSED), "% of the requests")
    report.add("answered", overload.rate * overload.share(ACCEPTED) / capacity, "x capacity")
    report.add("resident memory grows by", grown / machine.MB, "MB", at_most(20))


def _overload(server: Server, call: Call, rate: float, seconds: float) -> Outcome:
    return at_rate(server, [call], rate, seconds).only(ACCEPTED, REFUSED)
