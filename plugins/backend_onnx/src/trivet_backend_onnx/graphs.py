"""Runs of a session that captures CUDA graphs: inputs and outputs stay where they were when a graph was captured.

ONNX Runtime captures what a run launches on the GPU, and launches it at once in the runs after it. Such a graph knows
addresses and shapes, not values: so each combination of shapes has memory and a graph of its own. Source: ONNX
Runtime's CUDA provider, "Using CUDA Graphs", and its run option ``gpu_graph_id``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivet_backend_onnx.runtime import bound_outputs, ort

LIMIT = 64
"""Combinations of shapes that a session captures; memory for each is kept until the session is closed."""

_UNCAPTURED = -1


@dataclass(frozen=True, slots=True)
class _Run:
    """One combination of shapes, and the memory that its graph works on."""

    inputs: Mapping[str, Any]
    outputs: Sequence[Any]
    binding: Any
    options: Any


class CapturedRuns:
    """The runs of one session on one device; for one thread at a time, as a graph has one memory for all its runs."""

    def __init__(self, session: Any, device: str, device_id: int, run_options: Callable[[], Any]) -> None:
        """``run_options`` makes the ``onnxruntime.RunOptions`` of a run. No other run may use ``session``."""
        self._session = session
        self._device = device
        self._device_id = device_id
        self._run_options = run_options
        self._uncaptured = self._options(_UNCAPTURED)
        self._runs: dict[tuple[object, ...], _Run] = {}

    def run(self, values: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Sequence[Any]:
        """The ``OrtValue`` of each output, on the device. The next run writes over them."""
        key = (*outputs, *((name, value.shape) for name, value in values.items()))
        run = self._runs.get(key)
        if run is None:
            run = self._first_run(values, outputs)
            if len(self._runs) < LIMIT:
                self._session.run_with_iobinding(run.binding, run.options)
                self._runs[key] = run
        else:
            for name, value in values.items():
                run.inputs[name].update_inplace(_contiguous(value))
            self._session.run_with_iobinding(run.binding, run.options)
        return run.outputs

    def _first_run(self, values: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> _Run:
        """Run once without a graph, which gives the outputs memory of the right size."""
        inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(_contiguous(value), self._device, self._device_id)
            for name, value in values.items()
        }
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._device, self._device_id)
        self._session.run_with_iobinding(binding, self._uncaptured)
        results = bound_outputs(binding)
        binding.clear_binding_outputs()
        for name, value in zip(outputs, results, strict=True):
            binding.bind_ortvalue_output(name, value)
        return _Run(inputs, results, binding, self._options(len(self._runs) + 1))

    def _options(self, graph_id: int) -> Any:
        options = self._run_options()
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
        return options


def _contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """Of the same shape: numpy's own function gives a scalar a dimension."""
    return np.ascontiguousarray(array).reshape(array.shape)
