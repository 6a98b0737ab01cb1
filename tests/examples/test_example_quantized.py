"""Example models quantized by ONNX Runtime's own tools, served beside those they were made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from trivet.testing import running_server

from .conftest import EXAMPLES, Client


class Samples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Inputs that show which values a model's tensors have."""

    def __init__(self, *inputs: dict[str, Any]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def beside(original: Path, repository: Path) -> tuple[Path, Path]:
    """The model's file, and where its quantized one goes, in a folder that else is the same."""
    (repository / "original").symlink_to(original)
    shutil.copytree(original, repository / "quantized", ignore=shutil.ignore_patterns("model.onnx"))
    return original / "1" / "model.onnx", repository / "quantized" / "1" / "model.onnx"


def nodes(file: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(file).graph.node}


def answers(repository: Path, inputs: dict[str, Any], output: str) -> tuple[Any, Any]:
    """Of the original, and of the quantized one."""
    with running_server(repository) as server:
        client = Client("grpc", server)
        try:
            original, quantized = (client.infer(name, inputs, output) for name in ("original", "quantized"))
        finally:
            client.client.close()
    return original, quantized


def test_weights_of_eight_bits_whose_activations_are_quantized_as_they_come(
    example_repository: Path, tmp_path: Path
) -> None:
    """Dynamic quantization: a quarter of the size."""
    from processing import file_features

    original, quantized = beside(example_repository / "file_type", tmp_path)
    quantize_dynamic(original, quantized)
    assert "DynamicQuantizeLinear" in nodes(quantized)
    assert quantized.stat().st_size < original.stat().st_size / 2
    content = (EXAMPLES / "build_repository.py").read_bytes()
    exact, close = answers(tmp_path, {"bytes": file_features(content)}, "target_label")
    assert close.argmax() == exact.argmax()
    assert close.dtype == exact.dtype == np.float32
    np.testing.assert_allclose(close, exact, atol=0.05)


@pytest.mark.usefixtures("needs_export")
def test_activations_of_eight_bits_whose_scale_is_in_the_file(
    example_repository: Path, sample: Callable[[str], Path], tmp_path: Path
) -> None:
    """Static quantization, as pairs of QuantizeLinear and DequantizeLinear, calibrated on photographs."""
    from processing import imagenet_pixels

    photographs = [{"image": imagenet_pixels(sample(name))} for name in ("china.jpg", "flower.jpg", "grace_hopper.jpg")]
    original, quantized = beside(example_repository / "image_classification", tmp_path)
    quantize_static(original, quantized, Samples(*photographs), quant_format=QuantFormat.QDQ, per_channel=True)
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes(quantized)
    exact, close = answers(tmp_path, photographs[1], "probabilities")
    assert close.argmax() == exact.argmax()
    np.testing.assert_allclose(close, exact, atol=0.2)
