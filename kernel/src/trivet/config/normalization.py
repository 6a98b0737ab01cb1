"""The defaults that a configuration gets before it is checked and shown.

Source: Triton Inference Server's model configuration ("Instance Groups", "Version Policy", "Dynamic Batcher") and what
its configuration endpoint shows for models that leave things out.
"""

from __future__ import annotations

from typing import Protocol

from google.protobuf.internal.containers import RepeatedScalarFieldContainer

from trivet.config.model_config_pb2 import ModelConfig, ModelInstanceGroup

_SEQUENCE_IDLE_MICROSECONDS = 1_000_000


class BackendDefaults(Protocol):
    """What a backend says of itself that configurations leave out. :class:`trivet.hookspecs.BackendPlugin` is one."""

    @property
    def name(self) -> str:
        """The value of the configuration's ``backend``."""
        ...

    @property
    def platforms(self) -> tuple[str, ...]:
        """``platform`` values that mean this backend; the first is the default.

        Where there are several, each belongs to the name that stands at its place in ``model_filenames``.
        """
        ...

    @property
    def model_filenames(self) -> tuple[str, ...]:
        """Names of model files; the first is the default."""
        ...

    @property
    def default_cpu_instances(self) -> int:
        """Instances of a group on the CPU that gives no ``count``."""
        ...


def normalize(config: ModelConfig, *, backend: BackendDefaults | None = None, gpu_count: int = 0) -> None:
    """Fill in Triton's defaults, in place. Doing it again changes nothing.

    ``backend`` is the one that runs the model (``None`` for an ensemble), ``gpu_count`` how many GPUs instances can be
    placed on. What the author wrote stays, wrong or not: :func:`trivet.config.validate` judges it.
    """
    if backend is not None:
        _complete_backend(config, backend)
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    if config.HasField("dynamic_batching"):
        _prefer_full_batches(config, config.dynamic_batching.preferred_batch_size)
    if config.HasField("sequence_batching"):
        sequences = config.sequence_batching
        if sequences.max_sequence_idle_microseconds == 0:
            sequences.max_sequence_idle_microseconds = _SEQUENCE_IDLE_MICROSECONDS
        if sequences.HasField("oldest"):
            _prefer_full_batches(config, sequences.oldest.preferred_batch_size)
    if not config.HasField("ensemble_scheduling"):  # an ensemble has neither buffers nor instances of its own
        if not config.optimization.HasField("input_pinned_memory"):
            config.optimization.input_pinned_memory.enable = True
        if not config.optimization.HasField("output_pinned_memory"):
            config.optimization.output_pinned_memory.enable = True
        _complete_instance_groups(config, backend.default_cpu_instances if backend else 1, gpu_count)


def _complete_backend(config: ModelConfig, backend: BackendDefaults) -> None:
    if not config.backend:
        config.backend = backend.name
    pairs = list(zip(backend.platforms, backend.model_filenames, strict=False))
    if not config.platform and backend.platforms:
        by_file = [platform for platform, filename in pairs if filename == config.default_model_filename]
        config.platform = by_file[0] if by_file else backend.platforms[0]
    if not config.default_model_filename and backend.model_filenames:
        by_platform = [filename for platform, filename in pairs if platform == config.platform]
        config.default_model_filename = by_platform[0] if by_platform else backend.model_filenames[0]


def _prefer_full_batches(config: ModelConfig, preferred: RepeatedScalarFieldContainer[int]) -> None:
    if not preferred and config.max_batch_size > 0:
        preferred.append(config.max_batch_size)


def _complete_instance_groups(config: ModelConfig, cpu_instances: int, gpu_count: int) -> None:
    if not config.instance_group:
        config.instance_group.add(name=config.name)
    for index, group in enumerate(config.instance_group):
        if not group.name:
            group.name = f"{config.name}_{index}"
        if group.kind == ModelInstanceGroup.KIND_AUTO:
            on_gpu = gpu_count > 0 and all(gpu in range(gpu_count) for gpu in group.gpus)
            group.kind = ModelInstanceGroup.KIND_GPU if on_gpu else ModelInstanceGroup.KIND_CPU
        if group.count < 1:
            group.count = cpu_instances if group.kind == ModelInstanceGroup.KIND_CPU else 1
        if group.kind == ModelInstanceGroup.KIND_GPU and not group.gpus:
            group.gpus.extend(range(gpu_count))
