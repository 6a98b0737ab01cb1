"""BF16 tensors of a framework can be read on the host."""

from __future__ import annotations

import numpy as np
import pytest
from trivet.datatypes import BF16
from trivet.tensor import Tensor

torch = pytest.importorskip("torch")


def test_bf16_comes_as_bit_patterns() -> None:
    source = torch.tensor([[1.0, -2.0], [0.5, float("inf")]], dtype=torch.bfloat16)
    tensor = Tensor.from_dlpack("x", source, BF16, (2, 2))
    assert tensor.numpy().dtype == np.uint16
    assert tensor.numpy().tolist() == [[0x3F80, 0xC000], [0x3F00, 0x7F80]]
    assert bytes(tensor.wire()) == bytes.fromhex("803f00c0003f807f")
    # The framework's own tensor is what it was.
    assert source.dtype is torch.bfloat16
    assert torch.from_dlpack(source).dtype is torch.bfloat16
