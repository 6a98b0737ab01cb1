"""``torch.export`` programs and packages of AOTInductor: ``model.pt2``.

An exported program is a graph of PyTorch's operators, run by the interpreter that called ``module()`` gives. A package
of AOTInductor is machine code for one kind of device: it is as trusted as any shared library.
"""

from __future__ import annotations

import linecache
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trivet.datatypes import INT64

from trivet_backend_torch.nesting import Unflattened, join, leaf_paths
from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import torch
from trivet_backend_torch.signature import DATATYPES, Argument, Signature, TensorSpec, kind_of_type

_UNBOUNDED = 1 << 31
_one_at_a_time = threading.Lock()
"""torch.export.load keeps what it is at in a variable of its module."""


def load_program(path: Path, device: Any) -> Network:
    """Load a program onto ``device`` (``None``: where it was exported). Raises what PyTorch raises."""
    with _one_at_a_time:
        sources = _sources()
        before = set(sources)
        program = torch.export.load(path)
        signature = signature_of(program)
        if device is not None and (device.type != "cpu" or _is_on_gpu(program)):
            from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - PyTorch 2.7 and newer

            program = move_to_device_pass(program, device)
        module = program.module()
        made = set(sources) - before
    spec, constants = program.call_spec.in_spec, _constants(program, signature)
    return Network(_structured(module, spec, signature, constants), signature, module, partial(_forget, made))


def _is_on_gpu(program: Any) -> bool:
    """Whether any of a program's weights, or of what it computes, is: so it was exported."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    return any(isinstance(value, torch.Tensor) and value.device.type != "cpu" for value in values)


def _sources() -> dict[str, str]:
    """The code that PyTorch generates of graphs, by the name under which tracebacks find it."""
    from torch.fx import graph_module  # noqa: PLC0415 - many networks go without

    sources: dict[str, str] = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    return sources


def _forget(names: Iterable[str]) -> None:
    """Drop what PyTorch keeps of a program that is gone: its code for ever, its shapes for the next 256 programs."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # noqa: PLC0415

    sources = _sources()
    for name in names:
        sources.pop(name, None)
        linecache.cache.pop(name, None)
    for method in vars(ShapeEnv).values():
        if clear := getattr(method, "cache_clear", None):
            clear()


def load_package(path: Path, device: Any, *, one_thread: bool) -> Network:
    """Load compiled code, for use by ``one_thread`` or by several.

    Raises what PyTorch raises, and :class:`ValueError` for code of another kind of device.
    """
    from torch._inductor import aoti_load_package  # noqa: PLC0415 - the compiler's package is needed for these alone

    options: dict[str, Any] = {}
    if device is not None and device.type == "cuda":
        # Its bookkeeping for several threads asks CUDA what has ended, which nobody may while a graph is recorded.
        options = {"device_index": device.index, "run_single_threaded": one_thread}
    package = aoti_load_package(str(path), **options)
    built_for = str(package.get_metadata().get("AOTI_DEVICE_KEY", ""))
    wanted = "cpu" if device is None else device.type
    if built_for and device is not None and built_for != wanted:
        raise ValueError(f"it was compiled for {built_for}, and the instance is on {wanted}")
    spec, results = (torch.utils._pytree.treespec_loads(text) for text in package.loader.get_call_spec())
    arguments = tuple(Argument(name, "tensor", keyword_only=keyword) for name, keyword in _leaves(spec, ()))
    signature = Signature(arguments, outputs=_output_names(results))
    return Network(_structured(package, spec, signature, {}), signature)


def _structured(function: Any, spec: Any, signature: Signature, constants: Mapping[str, Any]) -> Any:
    """``function`` itself where it takes tensors only, each by itself."""
    if not constants and all(len(way) == 2 for way in leaf_paths(spec)):
        return function
    return Unflattened(function, spec, [argument.name for argument in signature.arguments], constants)


def _leaves(spec: Any, names: Sequence[str]) -> list[tuple[str, bool]]:
    """Name of each leaf of ``((arguments...), {keywords...})``, and whether it is a keyword's.

    ``names`` are the arguments'; one that is not known is ``INPUT__0`` and so on.
    """
    leaves = []
    for keyword, head, *inside in leaf_paths(spec):
        index = head if isinstance(head, int) and not keyword else len(names)
        whole = str(head) if keyword else names[index] if index < len(names) else f"INPUT__{head}"
        leaves.append((join(whole, inside), bool(keyword)))
    return leaves


def _output_names(spec: Any) -> tuple[str, ...]:
    """Keys of a dictionary, else ``OUTPUT__0`` and so on; with a path for what lies deeper."""
    names = []
    for way in leaf_paths(spec):
        head, *inside = way or (0,)
        names.append(join(head if isinstance(head, str) else f"OUTPUT__{head}", inside))
    return tuple(names)


def signature_of(program: Any) -> Signature:
    """All of it: names, element types, shapes, and how far the batch may grow."""
    nodes = {node.name: node for node in program.graph.nodes}
    arguments: list[Argument] = []
    batch_symbols: list[Any] = []
    for given, (name, keyword) in zip(_user_inputs(program), _leaves_of(program), strict=True):
        value = nodes[given.arg.name].meta.get("val") if given.arg.name in nodes else None
        if isinstance(value, torch.Tensor):
            arguments.append(Argument(name, "tensor", spec=_tensor_spec(value), keyword_only=keyword))
            batch_symbols.append(value.shape[0] if value.ndim else None)
        elif isinstance(value, torch.SymInt):  # of any value, where dynamic_shapes said so
            arguments.append(Argument(name, "int", spec=TensorSpec(INT64, (1,)), keyword_only=keyword))
        else:
            kind = kind_of_type(type(given.arg.value))
            arguments.append(Argument(name, kind, optional=True, keyword_only=keyword))
    outputs = _output_names(program.call_spec.out_spec)
    results = [nodes[spec.arg.name].meta.get("val") for spec in _user_outputs(program) if spec.arg.name in nodes]
    specs = tuple(_tensor_spec(value) if isinstance(value, torch.Tensor) else None for value in results)
    batch_symbols += [value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else None for value in results]
    return Signature(
        tuple(arguments), outputs=outputs, output_specs=specs, max_batch_size=_batch(program, batch_symbols)
    )


def _user_inputs(program: Any) -> list[Any]:
    return [spec for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]


def _leaves_of(program: Any) -> list[tuple[str, bool]]:
    """Names go by ``forward``'s arguments, which programs of PyTorch before 2.5 do not keep: then by the graph's."""
    spec = program.call_spec.in_spec
    whole = program.module_call_graph[0].signature
    names = list(getattr(whole, "forward_arg_names", None) or ())
    if not names and all(len(way) == 2 for way in leaf_paths(spec)):
        names = [given.arg.name for given in _user_inputs(program)]
    return _leaves(spec, names)


def _constants(program: Any, signature: Signature) -> dict[str, Any]:
    """What the program was exported with for arguments that are no tensors."""
    pairs = zip(signature.arguments, _user_inputs(program), strict=True)
    return {argument.name: given.arg.value for argument, given in pairs if argument.optional}


def _user_outputs(program: Any) -> list[Any]:
    return [spec for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]


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
    # Without a bound it is PyTorch's own infinity, which is no number to Python.
    return min(int(allowed.upper), _UNBOUNDED) if allowed.upper.is_Integer else _UNBOUNDED
