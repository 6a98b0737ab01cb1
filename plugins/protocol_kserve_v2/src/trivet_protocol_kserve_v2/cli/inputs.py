"""Files to tensors, as the model's description asks for them."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BOOL, BYTES
from trivet.tensor import Tensor, element_count, object_array

from trivet_protocol_kserve_v2.cli.exchange import InputDescription, ModelDescription, to_bf16

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are prepared; ``scaling`` ``None`` goes by the datatype."""

    scaling: str | None = None
    crop: bool = False


def read_inputs(
    model: ModelDescription, files: Sequence[str], texts: Sequence[str], images: ImageOptions
) -> list[Tensor]:
    """The input tensors in the model's order. Raises :class:`click.UsageError` saying what is missing or does not fit.

    A name that is given several times makes a batch, one item after the other.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    for given in files:
        name, file = _split_name(model, given)
        for target, array in _read(model, _choose(model, name, found, given) if name else None, file, found, images):
            found.setdefault(target.name, []).append(array)
    for given in texts:
        name, text = _split_name(model, given)
        target = _choose(model, name, found, given, only_bytes=True)
        found.setdefault(target.name, []).append(
            _fit(target, object_array([text.encode()], (1,)), model.batched, given)
        )
    missing = [description.name for description in model.inputs.values() if description.name not in found]
    required = [name for name in missing if not model.inputs[name].optional]
    if required:
        raise click.UsageError(
            f"model '{model.name}' needs input {', '.join(map(repr, required))}; give each with --input NAME=FILE"
            f" ({_describe(model)})"
        )
    return [_tensor(model, model.inputs[name], found[name]) for name in model.inputs if name in found]


def _split_name(model: ModelDescription, given: str) -> tuple[str, str]:
    """``NAME=REST`` where NAME is an input of the model; else all of it is the rest, and may contain ``=``."""
    name, equals, rest = given.partition("=")
    return (name, rest) if equals and name in model.inputs else ("", given)


def _choose(
    model: ModelDescription,
    name: str,
    found: Mapping[str, object],
    given: str,
    *,
    only_bytes: bool = False,
) -> InputDescription:
    """The input of that name, or the only one that it can be."""
    if name:
        return model.inputs[name]
    fitting = [one for one in model.inputs.values() if not only_bytes or one.datatype is BYTES]
    if len(fitting) == 1:
        return fitting[0]
    open_ones = [one for one in fitting if one.name not in found and not one.optional]
    if len(open_ones) == 1:
        return open_ones[0]
    wanted = "BYTES input" if only_bytes else "input"
    raise click.UsageError(f"which {wanted} is {given!r} for? Write NAME={given} ({_describe(model)})")


def _read(
    model: ModelDescription,
    target: InputDescription | None,
    file: str,
    found: Mapping[str, object],
    images: ImageOptions,
) -> list[tuple[InputDescription, NDArray[Any]]]:
    """What one file holds: a tensor for ``target``, or several by name."""
    suffix = Path(file).suffix.lower() if file != "-" else ".txt"
    if suffix in (".json", ".npz") and target is None:
        value = _load_json(file) if suffix == ".json" else _load_numpy(file)
        if isinstance(value, Mapping):
            return [_named(model, name, content, file) for name, content in value.items()]
        chosen = _choose(model, "", found, file)
        return [(chosen, _fit(chosen, _array(chosen, value, file), model.batched, file))]
    chosen = target or _choose(model, "", found, file)
    if suffix == ".json":
        array = _array(chosen, _load_json(file), file)
    elif suffix in (".npy", ".npz"):
        array = _cast(chosen, _load_numpy(file), file)
    elif suffix in IMAGES and chosen.datatype is not BYTES:
        from trivet_protocol_kserve_v2.cli.images import read_image  # noqa: PLC0415 - Pillow is optional

        array = _cast(chosen, read_image(file, chosen, images.scaling, images.crop), file)
    elif suffix == ".txt" and chosen.datatype is BYTES:
        lines = _read_bytes(file).splitlines()
        array = object_array(lines, (len(lines),))
    elif chosen.datatype is BYTES:
        array = object_array([_read_bytes(file)], (1,))
    else:
        raise click.UsageError(
            f"{file}: input '{chosen.name}' takes {chosen.datatype} numbers; give them as .json, .npy or an image"
        )
    return [(chosen, _fit(chosen, array, model.batched, file))]


def _named(model: ModelDescription, name: str, content: Any, file: str) -> tuple[InputDescription, NDArray[Any]]:
    description = model.inputs.get(name)
    if description is None:
        raise click.UsageError(f"{file}: model '{model.name}' has no input {name!r} ({_describe(model)})")
    array = _cast(description, content, file) if isinstance(content, np.ndarray) else _array(description, content, file)
    return description, _fit(description, array, model.batched, file)


def _array(target: InputDescription, value: Any, origin: str) -> NDArray[Any]:
    """A JSON value (number, text, boolean, nested arrays) as an array of the input's datatype."""
    try:
        array = np.array(value, dtype=np.object_)
    except ValueError as error:
        raise _ragged(target, origin) from error
    items = array.reshape(-1).tolist()
    if any(isinstance(item, list) for item in items):
        raise _ragged(target, origin)
    if target.datatype is BYTES:
        encoded = [item.encode() if isinstance(item, str) else json.dumps(item).encode() for item in items]
        return object_array(encoded, array.shape)
    if not all(isinstance(item, (bool, int, float)) for item in items):
        raise click.UsageError(f"{origin}: input '{target.name}' takes {target.datatype}, the file has something else")
    if target.datatype is BOOL and not all(item in (0, 1) for item in items):
        raise _misfit(target, origin)
    if target.datatype.numpy.kind in "iub" and not any(isinstance(item, float) for item in items):
        # Not through numpy's choice of a type for all, which is float64 for 0 beside 2**64 - 1.
        try:
            return array.astype(target.datatype.numpy)
        except OverflowError as error:
            raise _misfit(target, origin) from error
    return _cast(target, np.array(value, dtype=np.float64) if items else array.astype(np.float64), origin)


def _ragged(target: InputDescription, origin: str) -> click.UsageError:
    return click.UsageError(f"{origin}: the arrays for input '{target.name}' are not all of one length")


def _misfit(target: InputDescription, origin: str) -> click.UsageError:
    return click.UsageError(f"{origin}: values for input '{target.name}' do not fit into {target.datatype}")


def _cast(target: InputDescription, array: Any, origin: str) -> NDArray[Any]:
    """``array`` in the input's datatype, where that loses no more than precision. Raises :class:`click.UsageError`."""
    if not isinstance(array, np.ndarray):
        raise click.UsageError(f"{origin}: give one array for input '{target.name}' as .npy")
    if target.datatype is BYTES:
        if array.dtype.kind not in "SUO":
            raise click.UsageError(f"{origin}: input '{target.name}' takes BYTES, the file has {array.dtype}")
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        return object_array(items, array.shape)
    if target.datatype is BF16:
        return array if array.dtype == np.uint16 else to_bf16(array)
    wanted = target.datatype.numpy
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in "biuf" or (target.datatype is BOOL and array.dtype.kind == "f"):
        raise click.UsageError(f"{origin}: input '{target.name}' takes {target.datatype}, the file has {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted)
    if wanted.kind in "biu" and not np.array_equal(cast, array):
        raise _misfit(target, origin)
    return cast


def _fit(target: InputDescription, array: NDArray[Any], batched: bool, origin: str) -> NDArray[Any]:
    """``array`` with the input's rank: the batch dimension put in front, or a flat list of the right length shaped."""
    rank = len(target.shape) + batched
    if array.ndim == rank:
        return array
    is_item = array.ndim == len(target.shape) and all(
        want in (-1, have) for want, have in zip(target.shape, array.shape, strict=True)
    )
    if batched and is_item:
        return array[np.newaxis]
    item = element_count(target.shape)
    fixed = -1 not in target.shape
    if fixed and array.ndim <= 1 and item and array.size % item == 0 and (batched or array.size == item):
        return array.reshape((-1, *target.shape) if batched else target.shape)
    if not fixed and target.datatype is BYTES and array.size == 1:
        return array.reshape((1,) * rank)
    raise click.UsageError(
        f"{origin}: shape {list(array.shape)} does not fit input '{target.name}', which takes {list(target.shape)}"
        + (" and a batch dimension in front" if batched else "")
    )


def _tensor(model: ModelDescription, target: InputDescription, arrays: Sequence[NDArray[Any]]) -> Tensor:
    if len(arrays) == 1:
        whole = arrays[0]
    elif model.batched and len({array.shape[1:] for array in arrays}) == 1:
        whole = np.concatenate(arrays)
    else:
        why = "whose shapes differ" if model.batched else "and the model has no batch dimension"
        raise click.UsageError(f"input '{target.name}' was given {len(arrays)} times, {why}")
    return Tensor.from_numpy(target.name, whole, target.datatype)


def _load_json(file: str) -> Any:
    try:
        return json.loads(_read_bytes(file))
    except ValueError as error:
        raise click.UsageError(f"{file}: not JSON: {error}") from error
    except RecursionError:
        raise click.UsageError(f"{file}: nested too deeply") from None


def _load_numpy(file: str) -> Any:
    """The array of a ``.npy``, the arrays by name of a ``.npz``. Never unpickles: that would run what the file says."""
    try:
        # Opened here, since numpy leaves a file open that is no archive.
        with Path(file).open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise click.UsageError(f"{file}: not an array of numbers or text as numpy.save writes it: {error}") from error


def _read_bytes(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from error


def _describe(model: ModelDescription) -> str:
    inputs = (f"{one.name} {one.datatype}{list(one.shape)}" for one in model.inputs.values())
    return f"its inputs are: {', '.join(inputs)}"
