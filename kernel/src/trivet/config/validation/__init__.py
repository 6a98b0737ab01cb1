"""Can a model be served as its configuration says?

The checks and their wording are Triton's; what Triton lets pass and then trips over (a tensor named twice, a warm-up
sample that fits no input) is checked as well. Every problem is found, not only the first.

Source: Triton model configuration documentation, and the replies of Triton 2.51 to wrong configurations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from trivet.config.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.config.normalization import BackendDefaults
from trivet.config.validation.ensemble import ENSEMBLE_PLATFORM, ensemble_problems
from trivet.config.validation.padding import padding_problems
from trivet.config.validation.problem import Problem
from trivet.config.validation.schedulers import dynamic_batching_problems, sequence_batching_problems
from trivet.config.validation.tensors import TENSORRT_PLATFORM, batch_io_problems, tensor_problems
from trivet.config.validation.warmup import warmup_problems
from trivet.errors import InvalidArgumentError

__all__ = ["Problem", "find_problems", "raise_problems", "validate"]

MAX_INSTANCES = 1024
"""Of one model version, so that a slip of the pen costs one model and not the server its memory and threads."""


_METRIC_TAG = re.compile(r"(?!_)\w*", re.ASCII)
"""What is a label's name with a ``_`` before it, and not one that Prometheus keeps for itself (``__``)."""


def validate(
    config: ModelConfig,
    *,
    backend: BackendDefaults | None = None,
    gpu_count: int = 0,
    model_path: Path | None = None,
    origin: str = "",
) -> None:
    """Raise :class:`~trivet.errors.InvalidArgumentError` for a configuration that cannot be served.

    The message holds everything that :func:`find_problems` finds, each with its field, and the file where ``origin``
    names it.
    """
    raise_problems(find_problems(config, backend=backend, gpu_count=gpu_count, model_path=model_path), origin)


def raise_problems(problems: Sequence[Problem], origin: str) -> None:
    """Raise :class:`~trivet.errors.InvalidArgumentError` with all of them, each with its field; nothing for none."""
    if problems:
        source = f" in {origin}" if origin else ""
        raise InvalidArgumentError("; ".join(f"{p.message} (field '{p.field}'{source})" for p in problems))


def find_problems(
    config: ModelConfig, *, backend: BackendDefaults | None = None, gpu_count: int = 0, model_path: Path | None = None
) -> list[Problem]:
    """Everything that is wrong with a configuration that was normalized, in Triton's order of looking.

    ``backend`` is the one that runs the model. With ``model_path`` (the model's folder) the files that the
    configuration names are looked for too.
    """
    problems = [
        *_general_problems(config, backend),
        *dynamic_batching_problems(config),
        *sequence_batching_problems(config),
        *ensemble_problems(config),
        *_policy_problems(config),
        *tensor_problems(config),
        *batch_io_problems(config),
        *padding_problems(config),
        *_instance_group_problems(config, gpu_count),
        *warmup_problems(config),
    ]
    if model_path is not None:
        problems += _missing_files(config, model_path)
    return problems


def _general_problems(config: ModelConfig, backend: BackendDefaults | None) -> Iterator[Problem]:
    name = config.name
    if not name:
        yield Problem("name", "model configuration must specify 'name'")
    is_ensemble = config.platform == ENSEMBLE_PLATFORM
    if not config.backend and not is_ensemble:
        yield Problem("platform", f"unexpected platform type '{config.platform}' for {name}")
    elif config.backend and is_ensemble:
        yield Problem(
            "backend",
            f"Ensemble model '{name}' must have platform type '{ENSEMBLE_PLATFORM}' and empty backend type",
        )
    elif backend is not None and backend.platforms and config.platform not in backend.platforms:
        yield Problem(
            "platform",
            f"unexpected 'platform' and 'backend' pair, got:{config.platform}, {config.backend}; backend"
            f" '{backend.name}' has platform {' or '.join(map(repr, backend.platforms))}",
        )
    if config.max_batch_size < 0:
        yield Problem("max_batch_size", f"'max_batch_size' must be non-negative value for {name}")
    if not config.HasField("version_policy"):
        yield Problem("version_policy", f"must specify 'version policy' for {name}")


def _policy_problems(config: ModelConfig) -> Iterator[Problem]:
    if config.response_cache.enable and config.model_transaction_policy.decoupled:
        yield Problem(
            "response_cache.enable",
            f"Response Cache does not currently support model {config.name} with 'decoupled' transaction policy. Please"
            " disable the response cache.",
        )
    for tag in config.metric_tags:
        if not _METRIC_TAG.fullmatch(tag):
            yield Problem(
                f"metric_tags['{tag}']",
                f"metric tag '{tag}' is no name for a label, expected letters of ASCII, digits and '_', and no '_'"
                " first",
            )
    for index, control in enumerate(config.model_metrics.metric_control):
        field = f"model_metrics.metric_control[{index}]"
        if not control.HasField("metric_identifier"):
            yield Problem(f"{field}.metric_identifier", "metric control must specify 'metric_identifier'")
        elif not control.metric_identifier.family:
            yield Problem(f"{field}.metric_identifier.family", "metric identifier must specify non-empty 'family'")
        if not control.HasField("histogram_options"):
            yield Problem(f"{field}.histogram_options", "metric control must specify 'histogram_options'")
        elif not control.histogram_options.buckets:
            yield Problem(f"{field}.histogram_options.buckets", "histogram options must specify non-empty 'buckets'")


def _instance_group_problems(config: ModelConfig, gpu_count: int) -> Iterator[Problem]:
    if config.HasField("ensemble_scheduling"):
        return
    if not config.instance_group:
        yield Problem("instance_group", f"must specify one or more 'instance group's for {config.name}")
    total = sum(group.count * max(len(group.gpus), 1) for group in config.instance_group)
    if total > MAX_INSTANCES:
        yield Problem(
            "instance_group",
            f"model {config.name} wants {total} instances, each with a thread; at most {MAX_INSTANCES} are possible",
        )
    platform = f"{config.platform} " if config.platform else ""
    for index, group in enumerate(config.instance_group):
        field = f"instance_group[{index}]"
        where = f"instance group {group.name} of model {config.name}"
        kind = ModelInstanceGroup.Kind.Name(group.kind)
        if group.kind == ModelInstanceGroup.KIND_AUTO:
            yield Problem(f"{field}.kind", f"{where} has unexpected kind KIND_AUTO")
        elif group.kind != ModelInstanceGroup.KIND_GPU:
            if group.gpus:
                yield Problem(f"{field}.gpus", f"{where} has kind {kind} but specifies one or more GPUs")
        elif not group.gpus:
            yield Problem(f"{field}.kind", f"{where} has kind KIND_GPU but no GPUs are available")
        else:
            usable = ", ".join(map(str, range(gpu_count))) or "none"
            for gpu in group.gpus:
                if gpu not in range(gpu_count):
                    yield Problem(
                        f"{field}.gpus",
                        f"{where} specifies invalid or unsupported gpu id {gpu}. GPUs that this server can use are:"
                        f" {usable}",
                    )
        if group.profile and config.platform != TENSORRT_PLATFORM:
            yield Problem(
                f"{field}.profile",
                f"{where} and platform {platform}specifies profile field which is only supported for TensorRT models",
            )
        for profile in group.profile if config.platform == TENSORRT_PLATFORM else ():
            if not profile.isdecimal():
                yield Problem(
                    f"{field}.profile",
                    f"{where} and platform {config.platform} specifies invalid profile {profile}. The field should"
                    " contain the string representation of a non-negative integer.",
                )


def _missing_files(config: ModelConfig, model_path: Path) -> Iterator[Problem]:
    wanted = [
        (f"output[{index}].label_filename", model_path / output.label_filename)
        for index, output in enumerate(config.output)
        if output.label_filename
    ]
    for index, sample in enumerate(config.model_warmup):
        for name in sorted(sample.inputs):
            if sample.inputs[name].input_data_file:
                path = model_path / "warmup" / sample.inputs[name].input_data_file
                wanted.append((f"model_warmup[{index}].inputs['{name}'].input_data_file", path))
    for index, state in enumerate(config.sequence_batching.state):
        for number, initial in enumerate(state.initial_state):
            if initial.data_file:
                path = model_path / "initial_state" / initial.data_file
                wanted.append((f"sequence_batching.state[{index}].initial_state[{number}].data_file", path))
    for field, path in wanted:
        if not path.is_file():
            yield Problem(field, f"failed to open text file for read {path}: No such file or directory")
