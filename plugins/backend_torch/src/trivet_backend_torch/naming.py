"""Which input of a configuration is which argument of the network, and which output is which of its results.

Source: Triton's pytorch_backend, "naming convention". Inputs are all named as arguments of ``forward``, or all
``NAME__INDEX``, or else taken in the configuration's order; outputs are ``NAME__INDEX`` or in order. A network that
takes or gives a dictionary goes by its keys, and what lies deeper has a path (:mod:`trivet_backend_torch.nesting`). The
messages are Triton's where it has one, since people search for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from trivet.config import ModelConfig
from trivet.errors import InvalidArgumentError
from trivet.signatures import scheduler_inputs

from trivet_backend_torch.nesting import Path, split
from trivet_backend_torch.signature import CONTAINERS, Argument, Signature


def index_of(name: str) -> int | None:
    """The index of ``NAME__INDEX``; ``None`` for another name."""
    _, separator, index = name.partition("__")
    return int(index) if separator and index.isascii() and index.isdigit() and len(index) < 6 else None


def start_control(config: ModelConfig) -> str:
    """The input that tells where a sequence begins; "" where the configuration has none."""
    for control_input in config.sequence_batching.control_input:
        for control in control_input.control:
            if control.kind == control.CONTROL_SEQUENCE_START:
                return str(control_input.name)
    return ""


def bind_inputs(config: ModelConfig, signature: Signature, consumed: str = "") -> dict[str, Argument]:
    """The argument, or the part of one, that each input is; for a dictionary, an argument of the input's own name.

    ``consumed`` names a control that the network need not have. Arguments with a default may be left out. Raises
    :class:`~trivet.errors.InvalidArgumentError` where configuration and network disagree.
    """
    inputs = [message.name for message in config.input]
    extra = [name for name in scheduler_inputs(config) if name != consumed or _knows(signature, name)]
    parts = {name: part for name in (*inputs, *extra) if (part := signature.part(name)) is not None}
    if signature.takes_dict and not parts:
        return {name: Argument(name, "tensor") for name in (*inputs, *extra)}
    inputs, extra = ([name for name in names if name not in parts] for names in (inputs, extra))
    wholes = {part.name if part in signature.arguments else split(part.name)[0] for part in parts.values()}
    _check_count(config, signature, len(inputs) + len(extra) + len(wholes))
    arguments = {argument.name: argument for argument in signature.arguments}
    if all(name in arguments for name in inputs):
        bound = {name: arguments[name] for name in inputs}
    elif all(index_of(name) is not None for name in inputs):
        bound = {name: _at(config, signature, name, index_of(name) or 0) for name in inputs}
    else:
        bound = {name: _at(config, signature, name, index) for index, name in enumerate(inputs)}
    for position, name in enumerate(extra, start=len(inputs)):
        index = index_of(name)
        if name in arguments:
            bound[name] = arguments[name]
        elif index is not None:
            bound[name] = _at(config, signature, name, index)
        elif any(name in batch_input.target_name for batch_input in config.batch_input):
            bound[name] = _at(config, signature, name, position)
        else:
            raise InvalidArgumentError(
                f"unable to load model '{config.name}', input '{name}' does not follow <name>__<index> naming"
                f" convention and is no argument of the network, which takes {signature.described}"
            )
    _check_complete(config, signature, {**bound, **parts}, wholes)
    for name, argument in bound.items():
        if argument.kind in CONTAINERS:
            step = "KEY" if argument.kind == "dict" else "0"
            raise InvalidArgumentError(
                f"unable to load model '{config.name}': input '{name}' is one tensor, and argument '{argument.name}' of"
                f" the network is a {argument.kind}; name what is in it: {argument.name}[{step}]"
            )
    return {**bound, **parts}


def bind_outputs(config: ModelConfig, signature: Signature, names: Sequence[str]) -> dict[str, int | str | Path]:
    """Where each output is among the results: an index, the key of a dictionary, or the path to a part.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the network is known not to have it.
    """
    known = signature.outputs
    configured = [message.name for message in config.output if _path(message.name) is None]
    flat = [name for name in names if _path(name) is None]
    by_key = bool(known) and all(name in (known or ()) and index_of(name) is None for name in flat)
    by_index = all(index_of(name) is not None for name in configured)
    bound: dict[str, int | str | Path] = {}
    for name in names:
        path = _path(name)
        if path is not None:
            _check_path(name, path, known)
            bound[name] = path
            continue
        if by_key:
            bound[name] = name
            continue
        index = index_of(name) if by_index or name not in configured else configured.index(name)
        if index is None:
            raise InvalidArgumentError(
                f"PyTorch model '{config.name}' is using sequence batching with state but state '{name}' does not"
                " follow the <name>__<index> naming convention"
            )
        if known is not None and index >= len(known):
            raise no_such_output(name, len(known))
        bound[name] = index if known is None else place_of(known[index])
    return bound


def place_of(name: str) -> int | str | Path:
    """Where a result of that name, as a :class:`Signature` has it, is among the results."""
    return _path(name) or _place(name)


def _path(name: str) -> Path | None:
    """The path that an output's name has: ``boxes[0]``, ``OUTPUT__1[a]``, ``RESULT[1][a]``, and ``RESULT`` for all."""
    head, path = split(name)
    if head == "RESULT":
        return path
    return (_place(head), *path) if path else None


def _place(name: str) -> int | str:
    index = index_of(name)
    return name if index is None else index


def _check_path(name: str, path: Path, known: Sequence[str] | None) -> None:
    """Raise where the network is known not to have such a result, or to have it in several parts."""
    if known is None or (not path and len(known) == 1):
        return
    starts = [_path(output) or (_place(output),) for output in known]
    if not any(path[: len(start)] == start for start in starts):
        raise no_such_output(name, len(known))


def no_such_output(name: str, count: int) -> InvalidArgumentError:
    """In Triton's words."""
    return InvalidArgumentError(
        f"The output {name} in the model configuration refers to an output index which doesn't exist. This model has"
        f" {count} outputs"
    )


def _knows(signature: Signature, name: str) -> bool:
    return any(argument.name == name for argument in signature.arguments)


def _check_count(config: ModelConfig, signature: Signature, configured: int) -> None:
    most = len(signature.arguments)
    least = sum(not argument.optional for argument in signature.arguments)
    if configured < least or (configured > most and not signature.open):
        raise InvalidArgumentError(
            f"unable to load model '{config.name}', configuration expects {configured} inputs, model provides"
            f" {least if configured < least else most} ({signature.described})"
        )


def _at(config: ModelConfig, signature: Signature, name: str, index: int) -> Argument:
    if index < len(signature.arguments):
        return signature.arguments[index]
    if signature.open:
        return Argument(f"*{index}")
    raise InvalidArgumentError(
        f"unable to load model '{config.name}', input '{name}' refers to argument {index}, which doesn't exist. The"
        f" network takes {signature.described}"
    )


def _check_complete(config: ModelConfig, signature: Signature, bound: dict[str, Argument], wholes: set[str]) -> None:
    names = [argument.name for argument in bound.values()]
    missing = [a.name for a in signature.arguments if not a.optional and a.name not in (*names, *wholes)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if missing or twice:
        raise InvalidArgumentError(
            f"unable to load model '{config.name}': "
            + (f"no input is the argument {', '.join(missing)}" if missing else f"two inputs are argument {twice[0]}")
            + f" of the network, which takes {signature.described}"
        )
