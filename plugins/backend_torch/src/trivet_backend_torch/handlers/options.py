"""``model-config.yaml`` of an archive: which of TorchServe's settings a model's configuration gets, and which it cannot
have. What is under other names, such as ``handler``, is the handler's own.

Source: ``ModelConfig`` of TorchServe 0.12.
"""

from __future__ import annotations

import logging
from typing import Any

import yaml
from trivet.config import ModelConfig
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.errors import InvalidArgumentError

from trivet_backend_torch.handlers.archive import Archive

_YAML = "model-config.yaml"
_MAX_INT32 = (1 << 31) - 1
_REFUSED = {
    "continuousBatching": "a decoupled model may answer in parts without it",
    "asyncCommunication": "a Python model, with an 'execute' that is a coroutine, does that",
}
_UNUSED = (
    "clientTimeoutInMills",
    "maxNumSequence",
    "maxRetryTimeoutInSec",
    "maxSequenceJobQueueSize",
    "maxWorkers",
    "parallelLevel",
    "responseTimeout",
    "sequenceTimeoutMSec",
    "startupTimeout",
    "useJobTicket",
    "useVenv",
)


def read_options(archive: Archive) -> dict[str, Any]:
    """The file that the manifest names, or that is there. Raises :class:`~trivet.errors.InvalidArgumentError`."""
    file = archive.folder / str(archive.model.get("configFile") or _YAML)
    if not file.is_file():
        return {}
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"'{file.name}' of the archive is no YAML: {error}") from error
    return loaded if isinstance(loaded, dict) else {}


def check_options(options: dict[str, Any], model_name: str) -> None:
    """Raises :class:`~trivet.errors.InvalidArgumentError` for a setting without which the model would not be what its
    author meant.
    """
    parallel = str(options.get("parallelType") or "none").lower()
    if parallel not in ("none", "custom"):
        raise InvalidArgumentError(
            f"model '{model_name}' has 'parallelType: {parallel}' in its {_YAML}: one network in several processes of"
            " torchrun is not there; a handler that spreads its network over GPUs itself has 'parallelType: custom'"
        )
    for name, instead in _REFUSED.items():
        if options.get(name):
            raise InvalidArgumentError(
                f"model '{model_name}' has '{name}' in its {_YAML}, which is not there: {instead}"
            )


def log_unused(options: dict[str, Any], model_name: str, logger: logging.Logger) -> None:
    """Name the settings that have no effect."""
    unused = [name for name in _UNUSED if options.get(name)]
    if unused:
        logger.info("model '%s': without effect in its %s: %s", model_name, _YAML, ", ".join(unused))


def apply_options(config: ModelConfig, options: dict[str, Any], gpu_count: int) -> None:
    """Fill in batching, sequences and instances where nothing is configured.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a number that no configuration can have.
    """
    if config.max_batch_size == 0:
        # A handler takes a list of any length; its file says how many it is meant for.
        config.max_batch_size = _positive(options, "batchSize", 1)
    if config.WhichOneof("scheduling_choice") is None:
        if options.get("sequenceBatching"):
            config.sequence_batching.direct.SetInParent()
            idle_ms = _positive(options, "sequenceMaxIdleMSec", 0)
            config.sequence_batching.max_sequence_idle_microseconds = idle_ms * 1000
        elif config.max_batch_size > 1:
            delay_ms = _positive(options, "maxBatchDelay", 100) if "batchSize" in options else 0
            config.dynamic_batching.max_queue_delay_microseconds = delay_ms * 1000
            size = _positive(options, "jobQueueSize", 0)
            if size:
                config.dynamic_batching.default_queue_policy.max_queue_size = size
    if not config.instance_group:
        _place(config, options, gpu_count)


def _place(config: ModelConfig, options: dict[str, Any], gpu_count: int) -> None:
    """As many instances as workers; as in TorchServe the GPUs share them."""
    workers = _positive(options, "minWorkers", 0)
    if str(options.get("deviceType", "")).lower() == "cpu":
        config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=workers)
        return
    listed = options.get("deviceIds")
    if not workers and not listed:
        return
    present = range(gpu_count)
    gpus = [gpu for gpu in listed if gpu in present] if isinstance(listed, list) else list(present)
    if not gpus:
        config.instance_group.add(count=workers)
        return
    whole, more = divmod(workers or len(gpus), len(gpus))
    for count, those in ((whole + 1, gpus[:more]), (whole, gpus[more:])):
        if count and those:
            config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU, count=count, gpus=those)


def _positive(options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name)
    if not isinstance(value, int) or value <= 0:
        return default
    if value > _MAX_INT32:
        raise InvalidArgumentError(f"'{name}' of the archive's configuration is {value}, expected {_MAX_INT32} or less")
    return value
