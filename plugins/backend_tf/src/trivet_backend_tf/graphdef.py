"""GraphDefs: frozen graphs of TensorFlow 1, which say nothing of inputs and outputs but the names in the graph."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from trivet.backend import ModelContext
from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import find_tensor, scheduler_inputs

from trivet_backend_tf.files import read_message
from trivet_backend_tf.runtime import tf
from trivet_backend_tf.settings import Settings
from trivet_backend_tf.signature import (
    DATATYPES,
    PLACEHOLDER,
    PLACEHOLDER_WITH_DEFAULT,
    Signature,
    TensorInfo,
    described,
)

_INIT_OPS = "init_ops"


def read(path: Path, context: ModelContext) -> Any:
    """The ``GraphDef`` of a file. Raises :class:`~trivet.errors.InvalidArgumentError` for another kind of file."""
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(read_message(path, context.name))
    except DecodeError as error:
        raise InvalidArgumentError(
            f"failed to load model '{context.name}': '{path.name}' is no GraphDef; it is damaged or incomplete (a Git"
            f" LFS pointer?): {error}"
        ) from error
    if not graph_def.node:
        raise InvalidArgumentError(f"failed to load model '{context.name}': model {context.name} has an empty network")
    return graph_def


def placeholders(graph_def: Any) -> list[TensorInfo]:
    """What may be an input: the graph does not say more."""
    return [
        _info(node.name, node.attr["dtype"].type, node.attr["shape"].shape, optional=node.op != PLACEHOLDER)
        for node in graph_def.node
        if node.op in (PLACEHOLDER, PLACEHOLDER_WITH_DEFAULT)
    ]


def signature(config: ModelConfig, graph: Any, graph_def: Any) -> Signature:
    """The tensors that a configuration names, as they are in ``graph``. A name may end in ``:INDEX``, as in TensorFlow.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a name that cannot be an input or output.
    """
    known = {info.name: info for info in placeholders(graph_def)}
    inputs = {
        name: replace(find_tensor(name.removesuffix(":0"), "input", known), name=name)
        for name in (*(message.name for message in config.input), *scheduler_inputs(config))
    }
    states = (state.output_name for state in config.sequence_batching.state)
    outputs = {
        name: _output(name, graph, graph_def) for name in (*(message.name for message in config.output), *states)
    }
    fed = {info.graph_name for info in inputs.values()}
    needed = _needed(graph_def, [info.graph_name for info in outputs.values()], fed)
    missing = [info for name, info in known.items() if name in needed and not info.optional]
    if missing:
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects {len(inputs)} inputs, and its outputs need"
            f" more (not configured: {described(missing)})"
        )
    return Signature(inputs, outputs)


def init_ops(settings: Settings, context: ModelContext) -> list[str]:
    """What ``TF_INIT_OPS_FILE`` names, in the version's folder or else the model's.

    Raises :class:`~trivet.errors.InvalidArgumentError` where there is no such file, or something else in it.
    """
    name = settings.init_ops_file
    if not name:
        return []
    wrong = f"unable to load model '{context.name}', parameter TF_INIT_OPS_FILE is '{name}'"
    paths = [folder / name for folder in (context.version_path, context.model_path)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None or not path.resolve().is_relative_to(context.model_path.resolve()):
        raise InvalidArgumentError(f"{wrong}, expected a file in the version's folder or the model's")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[_INIT_OPS]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InvalidArgumentError(f'{wrong}, and the file is not of the form {{"{_INIT_OPS}": ["NAME"]}}')
    return found


def _info(name: str, dtype: int, shape: Any, *, optional: bool) -> TensorInfo:
    dims = None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)
    known = tf.dtypes.as_dtype(dtype)
    return TensorInfo(name, f"{name}:0", DATATYPES.get(known), known.name, dims, optional)


def _output(name: str, graph: Any, graph_def: Any) -> TensorInfo:
    graph_name = name if ":" in name else f"{name}:0"
    try:
        tensor = graph.get_tensor_by_name(graph_name)
    except (KeyError, ValueError):
        raise InvalidArgumentError(
            f"unexpected inference output '{name}', allowed outputs are: {', '.join(_last(graph_def.node))}, and any"
            " other tensor of the graph"
        ) from None
    shape = None if tensor.shape.rank is None else tuple(dim if dim is not None else -1 for dim in tensor.shape)
    return TensorInfo(name, graph_name, DATATYPES.get(tensor.dtype), tensor.dtype.name, shape)


def _needed(graph_def: Any, outputs: Iterable[str], fed: Collection[str]) -> set[str]:
    """The nodes that are computed for ``outputs``, up to the tensors that are ``fed``."""
    nodes = {node.name: node for node in graph_def.node}
    needed: set[str] = set()
    waiting = [name for name in outputs if name not in fed]
    while waiting:
        name = waiting.pop().partition(":")[0]
        if name not in needed:
            needed.add(name)
            sources = (source.lstrip("^") for source in nodes[name].input)
            waiting += [source for source in sources if (source if ":" in source else f"{source}:0") not in fed]
    return needed


def _last(nodes: Iterable[Any]) -> list[str]:
    """The nodes that no other takes from: most likely the outputs. At most ten."""
    taken = {source.lstrip("^").partition(":")[0] for node in nodes for source in node.input}
    return [node.name for node in nodes if node.name not in taken][-10:]
