"""What a model holds is given back when it is closed."""

from __future__ import annotations

import gc
import mmap
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from trivet import garbage
from trivet.backend import InstanceContext
from trivet.tensor import Tensor
from trivet_backend_onnx.backend import OnnxBackend

SIZE = 4 * 2**20


@pytest.fixture(scope="module")
def big(build_model: Any) -> bytes:
    """A model with 16 MB of weights, from which it picks some."""
    weights = onnx.numpy_helper.from_array(np.ones(SIZE, dtype=np.float32), "w")
    model: onnx.ModelProto = build_model(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        {"x": (TensorProto.INT64, (None, 2))},
        {"y": (TensorProto.FLOAT, (None, 2))},
        initializers=[weights],
    )
    return model.SerializeToString()


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def live_once(backend: OnnxBackend, context: Any, big: bytes, share: str) -> list[weakref.ref[Any]]:
    """Load the model, run two instances of it, close all; the sessions as they were."""
    parameters = f'parameters {{ key: "share_session_between_instances" value {{ string_value: "{share}" }} }}'
    made_context = context(big, parameters)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    sessions: list[weakref.ref[Any]] = []
    for number in range(2):
        instance: Any = model.create_instance(InstanceContext(f"m_{number}", "CPU"))
        x = Tensor.from_numpy("x", np.array([[0, SIZE - 1]]))
        assert instance.execute({"x": x}, ["y"])["y"].tolist() == [[1, 1]]
        sessions.append(weakref.ref(instance._session))
        instance.close()
    model.close()
    return sessions


@pytest.mark.parametrize("share", ["0", "1"])
def test_closing_frees_the_sessions_at_once(backend: OnnxBackend, context: Any, big: bytes, share: str) -> None:
    """Without waiting for the garbage collector, which may not come for a long time."""
    gc.disable()
    try:
        assert [session() for session in live_once(backend, context, big, share)] == [None, None]
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_does_not_grow(backend: OnnxBackend, context: Any, big: bytes) -> None:
    """What stays after many loads of 16 MB is less than one of them."""
    resident: list[int] = []
    for _ in range(12):
        live_once(backend, context, big, "0")
        garbage.release()  # as the kernel does after each unload
        resident.append(resident_memory())
    assert resident[-1] - resident[3] < 8 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hundred_lives_leave_nothing(backend: OnnxBackend, context: Any, add_sub: onnx.ModelProto) -> None:
    """Less than 4 KB each; ONNX Runtime by itself keeps a few hundred bytes of a session."""
    # One thread: others have heaps of their own, whose free space comes and goes.
    made_context = context(add_sub, 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }')
    backend.auto_complete(made_context)
    a = Tensor.from_numpy("a", np.ones((1, 4), np.float32))
    resident: dict[int, int] = {}
    for life in range(1, 251):
        model = backend.load(made_context)
        instance: Any = model.create_instance(InstanceContext("m_0", "CPU"))
        instance.execute({"a": a, "b": a.renamed("b")}, ["sum"])
        instance.close()
        model.close()
        if life in (50, 250):
            garbage.release()
            resident[life] = resident_memory()
    assert resident[250] - resident[50] < 200 * 4096
