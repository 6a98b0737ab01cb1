"""A run finds the memory of the run before, and need not ask the system for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: it is about what the C library does in all of it.
FAULTS = """
import resource
import threading

import torch
from trivet_backend_torch.allocation import keep_freed_memory

keep_freed_memory()

def run():
    torch.set_num_threads(1)
    layers = [(torch.nn.Conv2d(a, b, 3), torch.nn.PReLU(b), torch.nn.MaxPool2d(3, 2)) for a, b in ((3, 32), (32, 64))]
    network = torch.nn.Sequential(*(part for layer in layers for part in layer)).eval()
    images = torch.zeros(8, 3, 48, 48)
    with torch.inference_mode():
        for _ in range(20):
            network(images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            network(images)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)

thread = threading.Thread(target=run)  # as instances are run
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of the GNU C library")
def test_a_run_has_no_pages_mapped_again() -> None:
    result = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert float(result.stdout) < 100, "of more than 1,000 pages that the results have"
