"""MiniLM without a server on sequences of mixed length: one session of one thread, 32 sequences waiting at any time.

    python -m bench.peers.mixed_lengths MODEL SECONDS [SIZE WAY]

Tries each batch size two ways: the sequences that wait longest, and the one that waits longest with those nearest to it
in length; padded to the longest of the batch. Or one of them. Prints a line of JSON for each: size, way, sequences a
second, and sequences for each second of processor time, which other programs do not take away.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle

import numpy as np
import onnxruntime as ort

LENGTHS = np.random.default_rng(0).integers(8, 65, 512).tolist()
"""Tokens of each sequence, 8 to 64; whoever needs more begins again."""
WAITING = 32
SIZES = (1, 2, 4, 8, 16, 32)
IN_ORDER, ALIKE = "in order", "alike"


def main(model: str, seconds: float, only: tuple[int, str] | None = None) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    _run(session, [64] * 8)
    every = [(size, way) for size in SIZES for way in ((IN_ORDER,) if size in (1, WAITING) else (IN_ORDER, ALIKE))]
    for size, way in every if only is None else [only]:
        print(json.dumps([size, way, *_rates(session, size, way, seconds)]), flush=True)


def _rates(session: ort.InferenceSession, size: int, way: str, seconds: float) -> tuple[float, float]:
    coming = cycle(LENGTHS)
    waiting = [next(coming) for _ in range(WAITING)]
    count, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < began + seconds:
        first = waiting[0]
        if way == ALIKE:
            chosen = sorted(range(1, WAITING), key=lambda index: abs(waiting[index] - first))[: size - 1]
            batch = {0, *chosen}
        else:
            batch = set(range(size))
        _run(session, [waiting[index] for index in batch])
        count += size
        waiting = [length for index, length in enumerate(waiting) if index not in batch]
        waiting += [next(coming) for _ in range(size)]
    return count / (time.perf_counter() - began), count / (time.process_time() - used)


def _run(session: ort.InferenceSession, lengths: list[int]) -> None:
    ids = np.zeros((len(lengths), max(lengths)), np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = np.arange(1000, 1000 + length)
        mask[row, :length] = 1
    session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), (int(sys.argv[3]), sys.argv[4]) if len(sys.argv) > 3 else None)
