"""A TorchScript image classifier without a server: one thread that runs it as fast as it can.

    python -m bench.peers.torch_loop MODEL BATCH SECONDS

Prints inferences a second and the median time of a run in ms.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch


def main(path: str, batch: int, seconds: float) -> None:
    network = torch.jit.load(path)  # type: ignore[no-untyped-call]
    network.eval()
    images = torch.from_numpy(np.zeros((batch, 3, 224, 224), np.float32))
    with torch.inference_mode():
        for _ in range(5):
            network(images)
        runs: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            network(images).numpy()
            runs.append(time.perf_counter() - began)
    print(batch * len(runs) / sum(runs), statistics.median(runs) * 1000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
