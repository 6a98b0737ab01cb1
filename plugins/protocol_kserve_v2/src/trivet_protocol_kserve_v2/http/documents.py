"""The JSON documents that describe the server and its models.

Source: Open Inference Protocol v2, "Server Metadata" and "Model Metadata"; Triton's statistics and model repository
extensions. Fields come in Triton's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trivet.config.spec import ModelSpec, TensorSpec
from trivet.engine import Engine
from trivet.lifecycle import LoadedModel
from trivet.model_control import IndexEntry
from trivet.statistics import BatchStatistics, Duration, ModelStatistics, ResponseStatistics


def server_metadata(engine: Engine) -> dict[str, Any]:
    """``GET v2``."""
    return {"name": engine.server_name, "version": engine.version, "extensions": engine.extensions}


def model_metadata(model: LoadedModel, versions: Sequence[int]) -> dict[str, Any]:
    """``GET v2/models/NAME``, with the versions that are ready."""
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": model.platform,
        "inputs": [_tensor(tensor, model.spec) for tensor in model.spec.inputs.values()],
        "outputs": [_tensor(tensor, model.spec) for tensor in model.spec.outputs.values()],
    }


def repository_index(entries: Iterable[IndexEntry]) -> list[dict[str, str]]:
    """``POST v2/repository/index``; fields that say nothing are left out."""
    return [
        {
            key: value
            for key, value in (
                ("name", entry.name),
                ("version", entry.version),
                ("state", entry.state),
                ("reason", entry.reason),
            )
            if value
        }
        for entry in entries
    ]


def statistics(models: Iterable[ModelStatistics]) -> dict[str, Any]:
    """``GET v2/models/stats`` and its like."""
    return {"model_stats": [_model_statistics(model) for model in models]}


def _tensor(tensor: TensorSpec, model: ModelSpec) -> dict[str, Any]:
    batched = model.max_batch_size > 0 and not tensor.is_shape_tensor
    shape = (-1, *tensor.dims) if batched else tensor.dims
    return {"name": tensor.name, "datatype": tensor.datatype.name, "shape": shape}


def _model_statistics(model: ModelStatistics) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": _durations(
            model,
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        ),
        "response_stats": {
            index: _durations(
                response, "compute_infer", "compute_output", "success", "fail", "empty_response", "cancel"
            )
            for index, response in model.responses.items()
        },
        "batch_stats": [
            {"batch_size": size, **_durations(batch, "compute_input", "compute_infer", "compute_output")}
            for size, batch in sorted(model.batches.items())
        ],
        "memory_usage": [],
    }


def _durations(
    statistics: ModelStatistics | BatchStatistics | ResponseStatistics, *names: str
) -> dict[str, dict[str, int]]:
    return {name: _duration(getattr(statistics, name)) for name in names}


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
