"""EfficientNet-Lite0 as TorchScript, 32 concurrent and one alone, beside a loop with the same batch and threads.

One model instance, with PyTorch's own choice of threads, and batches of 8.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench import servers
from bench.calls import Call
from bench.load import checked, wrk
from bench.report import Report, at_least, at_most
from bench.repositories import Repository, repository
from bench.settings import Settings, rounds

BATCH = 8
IN_FLIGHT = 32
CONFIG = f"""
backend: "pytorch"
max_batch_size: {BATCH}
input {{ name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 1000 ] }}
dynamic_batching {{ }}
"""
LOOP, SERVED = f"loop, batches of {BATCH}", f"served, {IN_FLIGHT} in flight"
LOOP_ALONE, ALONE = "loop, one image: p50", "served, one in flight: p50"


def run(settings: Settings, report: Report) -> None:
    image = np.zeros((1, 3, 224, 224), np.float32)
    call = Call("classifier", {"image": image}, "probabilities")
    with repository() as models:
        file = _model(models)
        with servers.trivet(models.path) as server:
            network = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
            with torch.inference_mode():
                call.verify(server, network(torch.from_numpy(image)).numpy())
            measurements = {
                LOOP: lambda: _loop(file, BATCH, settings.seconds)[0],
                SERVED: lambda: checked(wrk, server, call, IN_FLIGHT, settings.seconds).rate,
                LOOP_ALONE: lambda: _loop(file, 1, settings.seconds)[1],
                ALONE: lambda: checked(wrk, server, call, 1, settings.seconds).p50_ms,
            }
            for order in rounds(settings, report, tuple(measurements)):
                for name in order:
                    unit = "ms" if name in (LOOP_ALONE, ALONE) else "inferences/s"
                    report.add(name, report.quietly(measurements[name]), unit)
    report.ratio("served / loop", SERVED, LOOP, at_least(0.95))
    report.difference("one alone: served - loop", ALONE, LOOP_ALONE, at_most(0.3))


def _model(models: Repository) -> Path:
    """The TorchScript file that ``build_repository.py --pytorch`` makes, with a configuration of its own."""
    builder = Path(__file__).parents[2] / "examples" / "build_repository.py"
    folder = models.path / "classifier" / "1"
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as built:
        command = [sys.executable, str(builder), "--only", "light", "--pytorch", "--output", built]
        subprocess.run(command, check=True, capture_output=True)
        data = (Path(built) / "image_classification_torchscript" / "1" / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(data)
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    return folder / "model.pt"


def _loop(model: Path, batch: int, seconds: float) -> tuple[float, float]:
    """Rate and median, of a process of its own: this one's threads and memory must not be in the way."""
    command = [sys.executable, "-m", "bench.peers.torch_loop", str(model), str(batch), str(seconds)]
    rate, p50_ms = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(rate), float(p50_ms)
