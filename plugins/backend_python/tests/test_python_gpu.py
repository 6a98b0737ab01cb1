"""A Python model's tensors on a real GPU, however it gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trivet_backend_python import pb_utils

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a torch with CUDA"),
]

GIVEN: dict[str, Callable[[Any], Any]] = {
    "tensor": lambda tensor: tensor,
    "capsule": torch.utils.dlpack.to_dlpack,  # as Triton's documentation has it
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_an_output_is_read_to_the_host(given: Callable[[Any], Any]) -> None:
    output = pb_utils.Tensor.from_dlpack("O", given(torch.arange(6.0, device="cuda").reshape(2, 3)))
    assert not output.is_cpu()
    assert output.__dlpack_device__() == (2, 0)
    sent = output._to_output()
    assert sent.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert output._to_output().numpy().tolist() == sent.numpy().tolist()  # as often as one likes


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_another_framework_reads_it_where_it_is(given: Callable[[Any], Any]) -> None:
    tensor = torch.ones(3, device="cuda")
    output = pb_utils.Tensor.from_dlpack("O", given(tensor))
    assert torch.from_dlpack(output).data_ptr() == tensor.data_ptr()
    assert np.from_dlpack(output, device="cpu").tolist() == [1, 1, 1]


def test_what_a_model_computes_on_a_stream_of_its_own_is_complete_when_it_is_read() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        value = torch.zeros(1 << 20, device="cuda")
        torch.cuda._sleep(1 << 28)  # long enough that a copy that did not wait would be seen
        value += 1
        output = pb_utils.Tensor.from_dlpack("O", value)
    assert (output._to_output().numpy() == 1).all()


def test_bfloat16() -> None:
    output = pb_utils.Tensor.from_dlpack("O", torch.ones(2, dtype=torch.bfloat16, device="cuda"))
    assert output._to_output().numpy().tolist() == [0x3F80] * 2
