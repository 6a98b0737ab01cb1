"""What a model takes, as its server tells, and one inference with the binary tensor data extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet import datatypes
from trivet.datatypes import BF16, DataType
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor, element_count, object_array

from trivet_protocol_kserve_v2.cli.client import Client, ServerError, model_path
from trivet_protocol_kserve_v2.cli.options import key_and_value


@dataclass(frozen=True, slots=True)
class InputDescription:
    """One input. ``shape`` is without the batch dimension; -1 is any size."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    format: str = "FORMAT_NONE"
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model as its server describes it."""

    name: str
    version: str
    """As asked for; empty for the latest."""
    batched: bool
    """Whether tensors have a batch dimension in front of ``InputDescription.shape``."""
    inputs: Mapping[str, InputDescription]
    output_names: Sequence[str]

    @property
    def path(self) -> tuple[str, ...]:
        """Segments below ``/v2``."""
        return model_path(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Result:
    """A response. BF16 outputs are float32 here, since numpy has no BF16."""

    model_name: str
    model_version: str
    outputs: Mapping[str, tuple[DataType, NDArray[Any]]]
    parameters: Mapping[str, Any]


def describe(client: Client, name: str, version: str) -> ModelDescription:
    """Ask for metadata, and for the configuration where the server has Triton's extension.

    Raises :class:`ServerError` where the server cannot be reached or does not know the model.
    """
    path = model_path(name, version)
    metadata = client.get(*path)
    try:
        config = client.get(*path, "config")
    except ServerError as error:
        if error.status is None:
            raise
        config = {}
    batched = int(config.get("max_batch_size", 0)) > 0
    configured = {tensor["name"]: tensor for tensor in config.get("input", [])}
    inputs = {}
    for tensor in metadata["inputs"]:
        shape = tuple(int(dim) for dim in tensor["shape"])
        extra = configured.get(tensor["name"], {})
        inputs[tensor["name"]] = InputDescription(
            tensor["name"],
            _datatype(tensor["datatype"]),
            shape[1:] if batched else shape,
            extra.get("format", "FORMAT_NONE"),
            bool(extra.get("optional", False)),
        )
    return ModelDescription(name, version, batched, inputs, [tensor["name"] for tensor in metadata["outputs"]])


def run(
    client: Client,
    model: ModelDescription,
    inputs: Sequence[Tensor],
    outputs: Sequence[str],
    classes: int | None,
    parameters: Sequence[str],
) -> Result:
    """One inference. ``outputs`` empty asks for all; ``classes`` for that many top classes in place of each output.

    Raises :class:`ServerError` where it fails, and :class:`click.UsageError` for a parameter that is not ``KEY=VALUE``.
    """
    blobs = [bytes(tensor.wire()) for tensor in inputs]
    header: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype.name,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(blob)},
            }
            for tensor, blob in zip(inputs, blobs, strict=True)
        ],
        "outputs": [
            {"name": name, "parameters": {"classification": classes} if classes else {"binary_data": True}}
            for name in outputs or model.output_names
        ],
    }
    if parameters:
        # The protocol's parameters are scalars; anything else was meant as text.
        header["parameters"] = dict(key_and_value("--parameter", given, (bool, int, float)) for given in parameters)
    answer, data = client.post_binary(*model.path, "infer", header=header, data=b"".join(blobs))
    found: dict[str, tuple[DataType, NDArray[Any]]] = {}
    offset = 0
    for output in answer.get("outputs", []):
        size = output.get("parameters", {}).get("binary_data_size")
        datatype = _datatype(output["datatype"])
        shape = tuple(output["shape"])
        if size is None:
            found[output["name"]] = (datatype, _from_json(datatype, shape, output.get("data", [])))
        else:
            found[output["name"]] = (
                datatype,
                _from_wire(output["name"], datatype, shape, data[offset : offset + size]),
            )
            offset += size
    return Result(answer["model_name"], answer["model_version"], found, answer.get("parameters", {}))


def to_bf16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Bit patterns of the nearest BF16 values, ties to even; NaN stays NaN."""
    single = np.ascontiguousarray(array, dtype=np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN's payload into the sign; a quiet NaN says the same.
    return np.where(np.isnan(single), 0x7FC0, rounded).astype(np.uint16)


def _from_wire(name: str, datatype: DataType, shape: tuple[int, ...], data: bytes) -> NDArray[Any]:
    try:
        array = Tensor.from_wire(name, datatype, shape, data).numpy()
    except InvalidArgumentError as error:
        raise ServerError(f"output '{name}' of the answer is malformed: {error}") from error
    if datatype is BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _from_json(datatype: DataType, shape: tuple[int, ...], data: Sequence[Any]) -> NDArray[Any]:
    if datatype is datatypes.BYTES:
        items = [item.encode() if isinstance(item, str) else item for item in data]
        return object_array(items, shape if element_count(shape) == len(items) else (len(items),))
    return np.array(data, dtype=np.float32 if datatype is BF16 else datatype.numpy).reshape(shape)


def _datatype(name: str) -> DataType:
    datatype = datatypes.BY_NAME.get(name)
    if datatype is None:
        raise ServerError(f"the server names a datatype '{name}' that KServe v2 does not have")
    return datatype
