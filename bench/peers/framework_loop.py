"""A model without a server: threads that call its framework, as fast as they can.

    python -m bench.peers.framework_loop BACKEND MODEL OUTPUT FOLDER SECONDS LOOPS

Every loop has a model of its own, which has one thread. Reads ``FOLDER/inputs.npz``, an array for each input, and
leaves ``FOLDER/answer.npy``. Prints runs a second of all loops together, the median time of a run in ms, and its
processor time in µs.
"""

from __future__ import annotations

import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from trivet.config.model_config_pb2 import ModelConfig

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], NDArray[Any]]
"""From the inputs by name, in the order in which the model takes them, to one output."""

WARM_UP_RUNS = 10


def onnxruntime(path: Path, output: str) -> Run:
    """``session.run``, which takes and gives arrays."""
    import onnxruntime as ort  # noqa: PLC0415 - only the framework that is measured

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: cast("NDArray[Any]", session.run([output], inputs)[0])


def pytorch(path: Path, _output: str) -> Run:
    """A TorchScript file, an exported program or an eager model; the first of its outputs."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    network: Any
    if path.suffix == ".py":
        network = _eager(path)
    else:
        network = torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(path).eval()  # type: ignore[no-untyped-call]

    def run(inputs: Arrays) -> NDArray[Any]:
        with torch.inference_mode():
            answer = network(*map(torch.from_numpy, inputs.values()))
            first: torch.Tensor = answer[0] if isinstance(answer, (tuple, list)) else answer
            return first.numpy()

    return run


def _eager(path: Path) -> Any:
    """The class that the model's configuration names, with the weights beside its file."""
    import torch  # noqa: PLC0415

    config = text_format.Parse((path.parents[1] / "config.pbtxt").read_text(), ModelConfig())
    network = runpy.run_path(str(path))[config.parameters["MODEL_CLASS"].string_value]().eval()
    weights = next(file for suffix in (".pt", ".pth") if (file := path.with_suffix(suffix)).exists())
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network


def tensorflow(path: Path, output: str) -> Run:
    """``session.run`` of a SavedModel's ``serving_default``, which also loads what ``tf.saved_model.load`` cannot."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf  # noqa: PLC0415

    tf.get_logger().setLevel("ERROR")
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = tf.compat.v1.Session(graph=graph, config=config)
    with graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    signature = loaded.signature_def["serving_default"]
    feeds = {name: tensor.name for name, tensor in signature.inputs.items()}
    fetch = signature.outputs[output].name
    return lambda inputs: cast(
        "NDArray[Any]", session.run(fetch, {feeds[name]: array for name, array in inputs.items()})
    )


FRAMEWORKS: Mapping[str, Callable[[Path, str], Run]] = {
    "onnxruntime": onnxruntime,
    "pytorch": pytorch,
    "tensorflow": tensorflow,
}
"""By the name of the backend that serves the same: a function that loads a model."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a loop."""

    rate: float
    """Runs a second of all loops together."""
    p50_ms: float
    processor_us: float
    """Processor time of a run; other than the two above, what else the machine does changes it little."""
    answer: NDArray[Any]


def in_own_process(
    backend: str, model: Path, output: str, inputs: Arrays, seconds: float, *, loops: int = 1
) -> Measured:
    """Run this module as a process, in which the threads and the memory of a figure are not in the way."""
    with tempfile.TemporaryDirectory() as folder:
        # mypy takes what is unpacked for numpy's own options.
        np.savez(Path(folder, "inputs.npz"), **cast("Any", inputs))
        command = [sys.executable, "-m", __name__, backend, str(model), output, folder, str(seconds), str(loops)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rate, p50_ms, processor_us = map(float, printed.split())
        return Measured(rate, p50_ms, processor_us, np.load(Path(folder, "answer.npy")))


def main(backend: str, model: str, output: str, folder: str, seconds: str, loops: str) -> None:
    with np.load(Path(folder, "inputs.npz")) as file:
        inputs = dict(file)
    runs = [FRAMEWORKS[backend](Path(model), output) for _ in range(int(loops))]
    np.save(Path(folder, "answer.npy"), runs[0](inputs))
    print(*measure(runs, inputs, float(seconds)))


def measure(runs: list[Run], inputs: Arrays, seconds: float) -> tuple[float, float, float]:
    """Runs a second of all together, median (ms) and processor time (µs) of one; a thread for each, begun together."""
    used: list[float] = []
    # Of the process, as a framework may have threads of its own.
    warm = threading.Barrier(len(runs), lambda: used.append(time.process_time()))
    took: list[list[float]] = [[] for _ in runs]
    elapsed = [0.0] * len(runs)

    def loop(index: int) -> None:
        run, times = runs[index], took[index]
        for _ in range(WARM_UP_RUNS):
            run(inputs)
        warm.wait()
        began = now = time.perf_counter()
        while now < began + seconds:
            run(inputs)
            before, now = now, time.perf_counter()
            times.append(now - before)
        elapsed[index] = now - began

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.process_time() - used[0]
    rate = sum(len(times) / total for times, total in zip(took, elapsed, strict=True))
    every = [one for times in took for one in times]
    return rate, statistics.median(every) * 1e3, spent / len(every) * 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
