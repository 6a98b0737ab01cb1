"""MiniLM without a server: threads that run one ONNX Runtime session each, as fast as they can.

    python -m bench.peers.onnx_loop MODEL SESSIONS SECONDS

Every session has one thread. Prints inferences a second of all together.
"""

from __future__ import annotations

import sys
import threading
import time

import onnxruntime as ort

from bench.figures.minilm import tokens


def main(model: str, sessions: int, seconds: float) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runners = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(sessions)]
    inputs = tokens()
    counts = [0] * sessions
    began = 0.0

    def begin() -> None:
        nonlocal began
        began = time.perf_counter()

    warm = threading.Barrier(sessions, action=begin)

    def loop(index: int) -> None:
        session = runners[index]
        for _ in range(5):
            session.run(None, inputs)
        warm.wait()
        while time.perf_counter() < began + seconds:
            session.run(None, inputs)
            counts[index] += 1

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(counts) / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
