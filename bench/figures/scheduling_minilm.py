"""MiniLM in one thread, dynamic batching, 32 concurrent, sequences of 8 to 64 tokens, beside a loop and Triton.

The loop has 32 sequences waiting, as the servers have. Each fixed batch size is tried, in order and with the waiting
sequences nearest in length, and the best one is measured beside the servers. Triton runs ONNX Runtime in a Python
model, which Trivet runs unchanged too, beside its own ONNX backend, which pads.

Beside the rates stands the processor time that they took, all threads and processes of a server together: that is the
same on a machine that others use.
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
from bench.peers.mixed_lengths import LENGTHS
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
_PROCESSOR = ", per processor second"
_Rates = tuple[float, float]
"""Sequences a second, and for each second of processor time."""


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
            size, way = _best_loop(settings.seconds / 2)
            measurements = {LOOP: lambda: _loop(settings.seconds, size, way)[0][2:]} | {
                name: partial(_served, server, calls, settings.seconds)
                for name, server in ((ONNX, onnx), (PYTHON, python), (TRITON, triton))
            }
            for order in rounds(settings, report, tuple(measurements)):
                for name in order:
                    rate, processor_rate = report.quietly(measurements[name])
                    report.add(name, rate, "sequences/s")
                    report.add(f"{name}{_PROCESSOR}", processor_rate, "sequences/s")
    for name in (ONNX, PYTHON):
        report.ratio(f"{name} / loop", name, LOOP, at_least(0.95))
        report.ratio(f"{name} / Triton", name, TRITON, at_least(1))
        report.ratio(f"{name} / loop{_PROCESSOR}", f"{name}{_PROCESSOR}", f"{LOOP}{_PROCESSOR}")
        report.ratio(f"{name} / Triton{_PROCESSOR}", f"{name}{_PROCESSOR}", f"{TRITON}{_PROCESSOR}")


def tokens(length: int) -> dict[str, NDArray[Any]]:
    """A sequence of that many tokens, INT64 [1, length] each."""
    ids = np.arange(1000, 1000 + length, dtype=np.int64).reshape(1, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _served(server: Server, calls: list[Call], seconds: float) -> _Rates:
    used = server.processor_s()
    outcome = in_flight(server, calls, CONCURRENT, seconds).only(200)
    return outcome.rate, outcome.answered / (server.processor_s() - used)


def _best_loop(seconds: float) -> tuple[int, str]:
    """The batch size and the way that need the least processor time."""
    lines = _loop(seconds)
    for size, way, _, processor_rate in lines:
        print(f"    loop of {size} {way}: {processor_rate:.0f} sequences per processor second", flush=True)
    size, way, *_ = max(lines, key=lambda line: line[3])
    return size, way


def _loop(seconds: float, *only: object) -> list[tuple[int, str, float, float]]:
    """Each size and way with its rates, or one, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "bench.peers.mixed_lengths",
        str(SENTENCE_EMBEDDING),
        str(seconds),
        *map(str, only),
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [tuple(json.loads(line)) for line in lines]
