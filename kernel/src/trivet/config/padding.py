"""Which inputs may be padded so that requests of different shapes share a batch, and which outputs are cut back.

Triton's schema has no field for it, so a model says so in its ``parameters``, which Triton ignores::

    parameters { key: "dynamic_batching.pad" value { string_value: "ids=0, mask=0" } }
    parameters { key: "dynamic_batching.unpad" value { string_value: "hidden.1=ids.1" } }

The first names inputs, each with the value to pad with. The second says of every variable axis of an output whose size
it follows, an axis of a padded input, or ``keep`` where padding does not change it. Axes count from the batch, axis 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivet.config.model_config_pb2 import TYPE_STRING

if TYPE_CHECKING:
    from trivet.config.model_config_pb2 import ModelConfig, ModelInput

PAD = "dynamic_batching.pad"
UNPAD = "dynamic_batching.unpad"
KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch of requests of different shapes is formed, and taken apart."""

    values: dict[str, Any]
    """The inputs that may be padded, each with a numpy scalar of its datatype (bit patterns for BF16)."""
    axes: dict[str, tuple[int, ...]]
    """Their variable axes, where they are padded; 0 is the batch."""
    cuts: dict[str, tuple[tuple[int, str, int], ...]]
    """Outputs that are cut back: axis, the input whose size in the request it gets, and the axis there."""


def read_padding(config: ModelConfig) -> tuple[Padding | None, list[tuple[str, str]]]:
    """What a completed configuration says of padding: ``None`` for nothing; and what is wrong: parameter, message."""
    texts = {key: config.parameters[key].string_value for key in (PAD, UNPAD) if key in config.parameters}
    if not texts:
        return None, []
    if PAD not in texts:
        return None, [(UNPAD, f"needs '{PAD}', as outputs are cut back to the size of an input that is padded")]
    problems: list[tuple[str, str]] = []
    if not config.HasField("dynamic_batching") or config.max_batch_size < 1:
        problems.append((PAD, "needs 'dynamic_batching' and a 'max_batch_size' of at least 1, as batches are padded"))
    reader = _Reader(config, problems)
    reader.read_inputs(texts[PAD])
    if not problems:  # what is wrong with an input would show again
        reader.read_outputs(texts.get(UNPAD, ""))
    return Padding(reader.values, reader.axes, reader.cuts), problems


class _Reader:
    def __init__(self, config: ModelConfig, problems: list[tuple[str, str]]) -> None:
        self._config = config
        self._problems = problems
        self.values: dict[str, Any] = {}
        self.axes: dict[str, tuple[int, ...]] = {}
        self.cuts: dict[str, tuple[tuple[int, str, int], ...]] = {}

    def read_inputs(self, text: str) -> None:
        inputs = {tensor.name: tensor for tensor in self._config.input}
        if not text:
            self._wrong(PAD, "is empty, expected INPUT=VALUE for each input that may be padded")
        for entry, name, value in _entries(text):
            if not name or not value:
                self._wrong(PAD, f"has '{entry}', expected INPUT=VALUE")
            elif name not in inputs:
                self._wrong(PAD, f"names input '{name}'; the model's inputs are {sorted(inputs)}")
            elif name in self.values:
                self._wrong(PAD, f"names input '{name}' more than once")
            elif reason := _unfit(inputs[name]):
                self._wrong(PAD, f"names input '{name}', which {reason}")
            else:
                from trivet.config.padding_value import datatype_name, scalar_of  # noqa: PLC0415 - numpy, for few models

                scalar = scalar_of(inputs[name].data_type, value)
                if scalar is None:
                    datatype = datatype_name(inputs[name].data_type)
                    self._wrong(PAD, f"pads input '{name}' with '{value}', which is no value of {datatype}")
                else:
                    self.values[name] = scalar
                    self.axes[name] = _variable_axes(inputs[name].dims)

    def read_outputs(self, text: str) -> None:
        scattered = {name for message in self._config.batch_output for name in message.target_name}
        outputs = {tensor.name: tensor for tensor in self._config.output}
        variable = {
            name: () if name in scattered or tensor.is_shape_tensor else _variable_axes(tensor.dims)
            for name, tensor in outputs.items()
        }
        open_axes = {f"{name}.{axis}" for name, axes in variable.items() for axis in axes}
        optional = {tensor.name for tensor in self._config.input if tensor.optional}
        for entry, target, source in _entries(text):
            name, axis = _axis(target)
            source_name, source_axis = _axis(source)
            if axis < 0 or (source != KEEP and source_axis < 0):
                self._wrong(UNPAD, f"has '{entry}', expected OUTPUT.AXIS=INPUT.AXIS or OUTPUT.AXIS={KEEP}")
            elif name not in outputs:
                self._wrong(UNPAD, f"names output '{name}'; the model's outputs are {sorted(outputs)}")
            elif axis not in variable[name]:
                self._wrong(UNPAD, f"names axis {axis} of output '{name}', which {_axes_text(variable[name])}")
            elif target not in open_axes:
                self._wrong(UNPAD, f"names axis {axis} of output '{name}' more than once")
            elif source == KEEP:
                open_axes.remove(target)
            elif source_name not in self.axes:
                self._wrong(UNPAD, f"names input '{source_name}'; '{PAD}' pads {sorted(self.axes)}")
            elif source_axis not in self.axes[source_name]:
                self._wrong(
                    UNPAD,
                    f"names axis {source_axis} of input '{source_name}', which {_axes_text(self.axes[source_name])}",
                )
            elif source_name in optional:
                self._wrong(UNPAD, f"names input '{source_name}', which is optional and need not be there to follow")
            else:
                open_axes.remove(target)
                self.cuts[name] = (*self.cuts.get(name, ()), (axis, source_name, source_axis))
        for target in sorted(open_axes):
            self._wrong(
                UNPAD,
                f"does not say whose size '{target}' follows, a variable axis of an output, in a padded batch; add"
                f" '{target}=INPUT.AXIS', or '{target}={KEEP}' where padding does not change it",
            )

    def _wrong(self, parameter: str, message: str) -> None:
        self._problems.append((parameter, message))


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """The entries of a list: each whole, before and after its last ``=``."""
    for part in text.split(",") if text else ():
        entry = part.strip()
        before, _, after = entry.rpartition("=")
        yield entry, before.strip(), after.strip()


def _axis(text: str) -> tuple[str, int]:
    """Name and axis of ``NAME.AXIS``; -1 where there is none. Names may have dots."""
    name, _, axis = text.rpartition(".")
    return (name, int(axis)) if axis.isascii() and axis.isdecimal() else (text, -1)


def _variable_axes(dims: Any) -> tuple[int, ...]:
    return tuple(axis for axis, dim in enumerate(dims, start=1) if dim < 0)


def _axes_text(axes: tuple[int, ...]) -> str:
    return f"has the variable axes {list(axes)}" if axes else "has no variable axis of its own"


def _unfit(tensor: ModelInput) -> str | None:
    """Why an input cannot be padded."""
    if tensor.data_type == TYPE_STRING:
        return "has strings, and those are not padded"
    if tensor.allow_ragged_batch:
        return "has 'allow_ragged_batch', and is not padded but laid in a row"
    if tensor.is_shape_tensor:
        return "is a shape tensor, the same for all requests of a batch"
    if -1 not in tensor.dims:
        return f"has no variable dimension, dims {list(tensor.dims)}"
    return None
