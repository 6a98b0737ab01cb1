"""``torch.export`` programs and packages of AOTInductor: ``model.pt2``.

An exported program is a graph of PyTorch's operators, run by the interpreter that called ``module()`` gives. A package
of AOTInductor is machine code for one kind of device: it is as trusted as any shared library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import torch
from trivet_backend_torch.signature import DATATYPES, Argument, Kind, Signature, TensorSpec

_UNBOUNDED = 1 << 31


def load_program(path: Path, device: Any) -> Network:
    """Load a program onto ``device`` (``None``: where it was exported). Raises what PyTorch raises."""
    program = torch.export.load(path)
    signature = signature_of(program)
    if device is not None and device.type != "cpu":
        from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - PyTorch 2.7 and newer

        program = move_to_device_pass(program, device)
    module = program.module()
    return Network(module, signature, module)


def load_package(path: Path, device: Any) -> Network:
    """Load compiled code. Raises what PyTorch raises, and :class:`ValueError` for code of another kind of device."""
    from torch._inductor import aoti_load_package  # noqa: PLC0415 - the compiler's package is needed for these alone

    index = device.index if device is not None and device.type == "cuda" else -1
    package = aoti_load_package(str(path), device_index=index)
    built_for = str(package.get_metadata().get("AOTI_DEVICE_KEY", ""))
    wanted = "cpu" if device is None else device.type
    if built_for and device is not None and built_for != wanted:
        raise ValueError(f"it was compiled for {built_for}, and the instance is on {wanted}")
    taken, given = (_spec(text) for text in package.loader.get_call_spec())
    positional, keywords = taken["children_spec"]
    arguments = [Argument(f"INPUT__{index}", "tensor") for index in range(len(positional["children_spec"]))]
    arguments += [Argument(name, "tensor", keyword_only=True) for name in json.loads(keywords["context"] or "[]")]
    return Network(package, Signature(tuple(arguments), outputs=_package_outputs(given)))


def _spec(text: str) -> Any:
    """A tree of ``torch.utils._pytree`` as it is written: ``[version, tree]``."""
    return json.loads(text)[1]


def _package_outputs(tree: Any) -> tuple[str, ...]:
    if tree["type"] == "builtins.dict":
        return tuple(json.loads(tree["context"]))
    return tuple(f"OUTPUT__{index}" for index in range(len(tree["children_spec"]) or 1))


def signature_of(program: Any) -> Signature:
    """All of it: names, element types, shapes, and how far the batch may grow."""
    nodes = {node.name: node for node in program.graph.nodes}
    keyword_names = set(program.call_spec.in_spec.child(1).context or ())
    arguments: list[Argument] = []
    batch_symbols: list[Any] = []
    for given in program.graph_signature.input_specs:
        if given.kind.name != "USER_INPUT":
            continue
        value = nodes[given.arg.name].meta.get("val") if given.arg.name in nodes else None
        if isinstance(value, torch.Tensor):
            arguments.append(
                Argument(
                    given.arg.name, "tensor", spec=_tensor_spec(value), keyword_only=given.arg.name in keyword_names
                )
            )
            batch_symbols.append(value.shape[0] if value.ndim else None)
        else:
            arguments.append(Argument(given.arg.name, _constant_kind(value), optional=True))
    outputs = _outputs(program)
    results = [nodes[spec.arg.name].meta.get("val") for spec in _user_outputs(program) if spec.arg.name in nodes]
    specs = tuple(_tensor_spec(value) if isinstance(value, torch.Tensor) else None for value in results)
    batch_symbols += [value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else None for value in results]
    return Signature(
        tuple(arguments), outputs=outputs, output_specs=specs, max_batch_size=_batch(program, batch_symbols)
    )


def _constant_kind(value: Any) -> Kind:
    for python_type, kind in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str")):
        if isinstance(value, python_type):
            return kind  # type: ignore[return-value]
    return "any"


def _user_outputs(program: Any) -> list[Any]:
    return [spec for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]


def _outputs(program: Any) -> tuple[str, ...]:
    tree = program.call_spec.out_spec
    if tree.type is dict:
        return tuple(tree.context)
    return tuple(f"OUTPUT__{index}" for index in range(len(_user_outputs(program))))


def _tensor_spec(value: Any) -> TensorSpec:
    return TensorSpec(DATATYPES.get(value.dtype), tuple(dim if isinstance(dim, int) else -1 for dim in value.shape))


def _batch(program: Any, symbols: list[Any]) -> int:
    """The largest size of the first dimension that all inputs and outputs share; 0 where there is none."""
    if not symbols or any(symbol is None or isinstance(symbol, int) for symbol in symbols):
        return 0
    expressions = {symbol.node.expr for symbol in symbols}
    if len(expressions) != 1:
        return 0
    allowed = program.range_constraints.get(expressions.pop())
    if allowed is None or int(allowed.lower) > 1:
        return 0
    try:
        return min(int(allowed.upper), _UNBOUNDED)
    except (OverflowError, TypeError, ValueError):
        return _UNBOUNDED
