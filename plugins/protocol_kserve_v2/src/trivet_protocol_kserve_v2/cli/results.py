"""How ``trivet infer`` shows and saves what came back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BYTES

from trivet_protocol_kserve_v2.cli.exchange import Result


def print_text(result: Result, classes: int | None) -> None:
    """Each output with its type and shape, and then its values or its top classes."""
    for position, (name, (datatype, array)) in enumerate(result.outputs.items()):
        if position:
            click.echo()
        if classes and datatype is BYTES:
            click.echo(f"{name}:")
            _print_classes(array)
            continue
        click.echo(f"{name}: {datatype} {list(array.shape)}")
        if datatype is BYTES:
            for item in array.reshape(-1).tolist():
                click.echo(f"  {_text(item)}")
        else:
            click.echo(
                np.array2string(array, precision=6, suppress_small=True, threshold=64, prefix="  ", max_line_width=110)
            )


def print_json(result: Result) -> None:
    """The response in the protocol's JSON form, whatever form it travelled in."""
    document: dict[str, Any] = {"model_name": result.model_name, "model_version": result.model_version}
    if result.parameters:
        document["parameters"] = dict(result.parameters)
    document["outputs"] = [
        {
            "name": name,
            "datatype": datatype.name,
            "shape": list(array.shape),
            "data": [_text(item) if datatype is BYTES else item for item in array.reshape(-1).tolist()],
        }
        for name, (datatype, array) in result.outputs.items()
    ]
    click.echo(json.dumps(document, ensure_ascii=False))


def save_arrays(result: Result, file: str) -> None:
    """Write ``.npy`` or ``.npz``. BYTES are saved as fixed-width byte strings, since pickles are not safe to load."""
    arrays = {name: _saveable(name, array) for name, (_, array) in result.outputs.items()}
    path = Path(file)
    try:
        if path.suffix == ".npz":
            np.savez(path, allow_pickle=False, **arrays)
        elif path.suffix != ".npy":
            raise click.UsageError(f"--save {file}: the name must end in .npy or .npz")
        elif len(arrays) != 1:
            raise click.UsageError(
                f"--save {file}: the response has {len(arrays)} outputs ({', '.join(arrays)}); choose one with"
                " --output, or save as .npz"
            )
        else:
            np.save(path, next(iter(arrays.values())), allow_pickle=False)
    except OSError as error:
        raise click.UsageError(f"--save {file}: {error.strerror}") from error


def _print_classes(array: NDArray[Any]) -> None:
    """Source: Triton's classification extension: each element is ``SCORE:INDEX`` or ``SCORE:INDEX:LABEL``."""
    rows = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)
    for number, row in enumerate(rows.tolist()):
        if len(rows) > 1:
            click.echo(f"  item {number}")
        for item in row:
            score, _, rest = _text(item).partition(":")
            index, _, label = rest.partition(":")
            click.echo(f"  {float(score):.6g}  {label or 'class'} ({index})")


def _saveable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != np.object_:
        return array
    fixed = array.astype(np.bytes_)
    if any(item.endswith(b"\0") for item in array.reshape(-1).tolist()):
        raise click.UsageError(f"--save: output '{name}' has elements that end in a zero byte, which .npy would drop")
    return fixed


def _text(item: bytes) -> str:
    return item.decode(errors="backslashreplace")
