"""Which fields of the schema are implemented, and what becomes of the others.

No field is ignored in silence. One whose absence would change answers is refused; one that only costs speed or
convenience is warned about. A plugin that implements a field claims it by its path, with everything below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import Message

from trivet.config.descriptors import fields_of, is_repeated, map_parts
from trivet.config.model_config_pb2 import ModelConfig

Action = Literal["refused", "warned"]

IMPLEMENTED = frozenset(
    (
        "name",
        "platform",
        "backend",
        "version_policy",
        "max_batch_size",
        "input.name",
        "input.data_type",
        "input.format",
        "input.dims",
        "input.reshape",
        "input.is_shape_tensor",
        "input.allow_ragged_batch",
        "input.optional",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.reshape",
        "output.label_filename",
        "output.is_shape_tensor",
        "batch_input",
        "batch_output",
        "instance_group.name",
        "instance_group.kind",
        "instance_group.count",
        "instance_group.gpus",
        "instance_group.profile",
        "instance_group.rate_limiter",
        "instance_group.secondary_devices",
        "instance_group.passive",
        "instance_group.host_policy",
        "default_model_filename",
        "parameters",
        "model_transaction_policy.decoupled",
        "model_warmup",
        "response_cache.enable",
    )
)
"""What the kernel does itself or hands to every backend, by path, each with everything below it."""

_UNBATCHED = "each request is executed on its own"
_SLOWER = "the model answers the same, possibly slower"
_PINNED = "this backend does not pin host memory"
_NO_METRIC = "the model's metrics go without it"

NOT_IMPLEMENTED: dict[str, tuple[Action, str]] = {
    "runtime": ("warned", "the backend is chosen by 'backend' alone"),
    "input.is_non_linear_format_io": ("refused", "the tensor's memory layout would be taken for a linear one"),
    "output.is_non_linear_format_io": ("refused", "the tensor's memory layout would be taken for a linear one"),
    "optimization.graph": ("warned", _SLOWER),
    "optimization.priority": ("warned", _SLOWER),
    "optimization.cuda": ("warned", _SLOWER),
    "optimization.execution_accelerators": ("warned", _SLOWER),
    "optimization.input_pinned_memory": ("warned", _PINNED),
    "optimization.output_pinned_memory": ("warned", _PINNED),
    "optimization.gather_kernel_buffer_threshold": ("warned", _SLOWER),
    "optimization.eager_batching": ("warned", _SLOWER),
    "dynamic_batching": ("warned", f"{_UNBATCHED}, and its queue policies and priorities do not apply"),
    "sequence_batching": ("refused", "requests of one sequence would go to any instance, without their controls"),
    "ensemble_scheduling": ("refused", "there would be nothing to run the steps"),
    "ensemble_scheduling.step.model_namespace": ("warned", "models are found by their names alone"),
    "cc_model_filenames": ("refused", "the default model file would be loaded on every GPU"),
    "metric_tags": ("warned", _NO_METRIC),
    "model_operations": ("refused", "the model's custom operations would be missing"),
    "model_repository_agents": ("refused", "the model's files would be loaded unchecked and unchanged"),
    "model_metrics": ("warned", _NO_METRIC),
}
"""All other fields, by path, each with everything below that is not listed apart: what happens, and what is missing."""

# `normalize` writes these for every model; asking for the default asks for nothing.
_DEFAULTS = frozenset(("optimization.input_pinned_memory.enable", "optimization.output_pinned_memory.enable"))


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field that a configuration sets and nothing installed implements."""

    field: str
    """Its path without indices, e.g. ``input.allow_ragged_batch``."""
    action: Action
    message: str

    @property
    def refused(self) -> bool:
        """Whether the model must not be loaded."""
        return self.action == "refused"


def unsupported(config: ModelConfig, supported: Collection[str] = ()) -> list[Unsupported]:
    """The fields that ``config`` sets and that neither the kernel nor the plugins implement, each once.

    ``supported`` are the paths that plugins claim (``BackendPlugin.config_fields``, a scheduler's name): a path covers
    everything below it. A field that holds its default counts as not set.
    """
    found: dict[str, Unsupported] = {}
    for path in _set_paths(config, ""):
        listed = listed_as(path)
        if listed is None or any(_claims(claimed, path, listed) for claimed in supported):
            continue
        # A plugin may implement a part of what the table lists as one: then the rest is reported by its own path.
        partly = any(_covers(listed, claimed) for claimed in supported)
        if partly and path == listed:
            continue
        field = path if partly else listed
        action, consequence = NOT_IMPLEMENTED[listed]
        word = "is not supported" if action == "refused" else "is ignored"
        found.setdefault(field, Unsupported(field, action, f"field '{field}' {word}: {consequence}"))
    return list(found.values())


def listed_as(path: str) -> str | None:
    """The entry of :data:`NOT_IMPLEMENTED` that speaks of a field: the longest, as a part may be listed on its own."""
    return max((entry for entry in NOT_IMPLEMENTED if _covers(entry, path)), key=len, default=None)


def _claims(claimed: str, path: str, listed: str) -> bool:
    """Whether a plugin that claims ``claimed`` implements ``path``. A listed group has no part that is listed apart."""
    return _covers(claimed, path) and (claimed == listed or claimed not in NOT_IMPLEMENTED)


def _covers(entry: str, path: str) -> bool:
    return path == entry or path.startswith(f"{entry}.")


def _set_paths(message: Message, prefix: str) -> Iterator[str]:
    """The paths of all fields that are set, down to scalars, maps and messages that hold nothing."""
    empty = True
    for field in fields_of(message.DESCRIPTOR):
        path = f"{prefix}.{field.name}" if prefix else field.name
        value = getattr(message, field.name)
        if field.message_type is not None and map_parts(field) is None:
            for part in value if is_repeated(field) else [value] if message.HasField(field.name) else []:
                empty = False
                yield from _set_paths(part, path)
        elif value and path not in _DEFAULTS:
            empty = False
            yield path
        else:
            empty = empty and not value
    if empty and prefix:
        yield prefix
