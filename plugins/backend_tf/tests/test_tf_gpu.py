"""An instance on a GPU: the CPU's answers, and no more of its memory than is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from tf_models import MakeContext, MakeInstance, parameter, run, save_double, tf
from trivet.errors import UnavailableError

GPUS = tf.config.list_physical_devices("GPU")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="needs a CUDA device and a TensorFlow with CUDA"),
]

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize("kind", ["GPU", "MODEL"])
def test_it_answers_as_on_the_cpu(kind: str, context: MakeContext, instance: MakeInstance) -> None:
    on_gpu = instance(context(save_double), kind=kind)
    np.testing.assert_allclose(run(on_gpu, ["y"], x=X)["y"], 2 * X)


def test_memory_grows_with_what_is_used(context: MakeContext) -> None:
    """By default TensorFlow would take nearly all of it, and for all that the process does: so in one of its own."""
    pytest.importorskip("cuda.bindings", reason="what a GPU's memory is like is asked of CUDA")
    environment = {name: value for name, value in os.environ.items() if name != "TF_FORCE_GPU_ALLOW_GROWTH"}
    done = subprocess.run(
        [sys.executable, "-c", TAKEN, str(context(save_double).model_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken, total = map(int, done.stdout.split())
    assert taken < total / 4


TAKEN = """
import sys
from pathlib import Path

import numpy as np
from cuda.bindings import runtime
from trivet.tensor import Tensor
from trivet.testing import model_context, running_instance
from trivet_backend_tf.backend import TensorFlowBackend

context = model_context(Path(sys.argv[1]), backend="tensorflow")
_, before, total = runtime.cudaMemGetInfo()
with running_instance(TensorFlowBackend(), context, kind="GPU") as made:
    made.execute({"x": Tensor.from_numpy("x", np.ones((2, 4), np.float32))}, ["y"])
    print(before - runtime.cudaMemGetInfo()[1], total)
"""


def test_a_tensor_that_is_on_the_gpu_is_read_to_the_host(context: MakeContext, instance: MakeInstance) -> None:
    torch = pytest.importorskip("torch")
    from trivet import datatypes
    from trivet.tensor import Tensor

    there = Tensor.from_dlpack("x", torch.from_numpy(X).cuda(), datatypes.FP32, X.shape)
    np.testing.assert_allclose(run(instance(context(save_double), kind="GPU"), ["y"], x=there)["y"], 2 * X)


def test_mixed_precision_and_xla(context: MakeContext, instance: MakeInstance) -> None:
    config = """optimization {
        graph { level: 1 }
        execution_accelerators { gpu_execution_accelerator { name: "auto_mixed_precision" } }
    }"""
    on_gpu = instance(context(save_double, config), kind="GPU")
    np.testing.assert_allclose(run(on_gpu, ["y"], x=X)["y"], 2 * X, rtol=1e-2)


def test_a_gpu_too_many(context: MakeContext, instance: MakeInstance) -> None:
    with pytest.raises(UnavailableError, match=f"needs GPU {len(GPUS)}, and TensorFlow .* sees {len(GPUS)}"):
        instance(context(save_double), kind="GPU", device_id=len(GPUS))


def test_sessions_on_both_do_not_disturb_each_other(context: MakeContext, instance: MakeInstance) -> None:
    made = context(save_double, parameter("TF_NUM_INTER_THREADS", "1"))
    on_cpu, on_gpu = instance(made), instance(made, kind="GPU")
    for each in (on_cpu, on_gpu, on_cpu):
        np.testing.assert_allclose(run(each, ["y"], x=X)["y"], 2 * X)
