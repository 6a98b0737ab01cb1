"""MiniLM in one thread, dynamic batching, 32 concurrent, sequences of 8 to 64 tokens, beside a loop and Triton.

The loop has 32 sequences waiting, as the servers have, and every fixed batch size; the best one counts. Triton runs
ONNX Runtime in a Python model, which Trivet runs unchanged too, beside its own ONNX backend.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench import servers
from bench.calls import Call
from bench.http_load import in_flight
from bench.peers.mixed_lengths import LENGTHS, SIZES
from bench.report import Report, at_least
from bench.repositories import MODELS, SENTENCE_EMBEDDING, repository
from bench.servers import Server
from bench.settings import Settings, rounds

CONCURRENT = 32
CONFIG = """
max_batch_size: 32
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "dynamic_batching.pad" value: { string_value: "input_ids=0,attention_mask=0,token_type_ids=0" } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
"""
LOOP, ONNX, PYTHON, TRITON = "loop", "Trivet, ONNX backend", "Trivet, Python model", "Triton, Python model"


def run(settings: Settings, report: Report) -> None:
    servers.provide_to_triton("onnxruntime")
    with repository() as models, repository() as python_models:
        models.onnx("minilm", SENTENCE_EMBEDDING, CONFIG)
        folder = python_models.path / "minilm"
        shutil.copytree(MODELS / "minilm_python", folder)
        (folder / "1" / "model.onnx").symlink_to(SENTENCE_EMBEDDING.resolve())
        with (
            servers.trivet(models.path) as onnx,
            servers.trivet(python_models.path) as python,
            servers.real_triton(python_models.path) as triton,
        ):
            calls = [Call("minilm", tokens(length), "sentence_embedding") for length in LENGTHS]
            session = ort.InferenceSession(SENTENCE_EMBEDDING)
            for server in (onnx, python, triton):
                for call in calls[:4]:
                    call.verify(server, session.run(None, call.inputs)[0])
            measurements = {LOOP: lambda: _loop(settings)} | {
                name: partial(_served, server, calls, settings.seconds)
                for name, server in ((ONNX, onnx), (PYTHON, python), (TRITON, triton))
            }
            for order in rounds(settings, report, tuple(measurements)):
                for name in order:
                    report.add(name, report.quietly(measurements[name]), "sequences/s")
    for name in (ONNX, PYTHON):
        report.ratio(f"{name} / loop", name, LOOP, at_least(0.95))
        report.ratio(f"{name} / Triton", name, TRITON, at_least(1))


def tokens(length: int) -> dict[str, NDArray[Any]]:
    """A sequence of that many tokens, INT64 [1, length] each."""
    ids = np.arange(1000, 1000 + length, dtype=np.int64).reshape(1, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _served(server: Server, calls: list[Call], seconds: float) -> float:
    return in_flight(server, calls, CONCURRENT, seconds).only(200).rate


def _loop(settings: Settings) -> float:
    """Sequences a second of the best batch size, in a process of its own; all sizes take as long as one server."""
    seconds = settings.seconds / len(SIZES)
    command = [sys.executable, "-m", "bench.peers.mixed_lengths", str(SENTENCE_EMBEDDING), str(seconds)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    size, way, rate = max(map(json.loads, lines), key=lambda line: float(line[2]))
    print(f"    the best loop takes {size} {way}", flush=True)
    return float(rate)
