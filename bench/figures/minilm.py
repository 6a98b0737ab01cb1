"""MiniLM on ONNX Runtime, sequence 32, 8 concurrent, beside a loop over session.run with the same threads.

Two model instances of one thread each. What is lost against the loop is what serving costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench import servers
from bench.calls import Call
from bench.load import checked, h2load, wrk
from bench.peers import framework_loop
from bench.report import Report, at_least
from bench.repositories import SENTENCE_EMBEDDING, repository
from bench.settings import Settings, rounds

SESSIONS = 2
IN_FLIGHT = 8
CONFIG = f"""
max_batch_size: 8
instance_group [ {{ kind: KIND_CPU count: {SESSIONS} }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""
LOOP, HTTP, AIO, NATIVE = "loop over session.run", "HTTP", "gRPC (aio)", "gRPC (native)"


def tokens() -> dict[str, NDArray[Any]]:
    """One sentence of 32 tokens, INT64 [1, 32] each: any ids take as long as any others."""
    ids = np.arange(1000, 1032, dtype=np.int64).reshape(1, 32)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def run(settings: Settings, report: Report) -> None:
    call = Call("minilm", tokens(), "sentence_embedding")
    with repository() as models:
        models.onnx("minilm", SENTENCE_EMBEDDING, CONFIG)
        with servers.trivet(models.path) as aio, servers.trivet(models.path, "--grpc-server=native") as native:
            expected = ort.InferenceSession(SENTENCE_EMBEDDING).run(None, tokens())[0]
            for server in (aio, native):
                call.verify(server, expected)

            measurements = {
                LOOP: lambda: _loop(settings.seconds),
                HTTP: lambda: checked(wrk, aio, call, IN_FLIGHT, settings.seconds).rate,
                AIO: lambda: checked(h2load, aio, call, IN_FLIGHT, settings.seconds).rate,
                NATIVE: lambda: checked(h2load, native, call, IN_FLIGHT, settings.seconds).rate,
            }
            for order in rounds(settings, report, tuple(measurements)):
                for name in order:
                    report.add(name, report.quietly(measurements[name]), "inferences/s")
    for name in (HTTP, AIO, NATIVE):
        report.ratio(f"{name} / loop", name, LOOP, at_least(0.9))


def _loop(seconds: float) -> float:
    """Inferences a second of a thread for each session."""
    output = "sentence_embedding"
    return framework_loop.in_own_process(
        "onnxruntime", SENTENCE_EMBEDDING, output, tokens(), seconds, loops=SESSIONS
    ).rate
