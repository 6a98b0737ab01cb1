from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays

CONFIG = """
platform: "pytorch_libtorch"
max_batch_size: 8
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 4 ] }
"""


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class TestTorchScript(BackendConformance):
    backend = "pytorch"
    config = CONFIG

    def write_model(self, folder: Path) -> None:
        torch.jit.trace(Double(), torch.ones(1, 4)).save(str(folder / "model.pt"))

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"INPUT__0": np.random.default_rng(seed).random((rows, 4), np.float32)}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"OUTPUT__0": 2 * inputs["INPUT__0"]}
