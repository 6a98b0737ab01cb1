"""An instance: one network, run on its own thread over whole batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from trivet.backend import ArrayInstance, ModelContext, OutputValue
from trivet.datatypes import BY_CONFIG_VALUE, BYTES
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.signatures import model_dims
from trivet.tensor import Tensor

from trivet_backend_torch.devices import Host
from trivet_backend_torch.held import held
from trivet_backend_torch.naming import bind_inputs, bind_outputs, no_such_output, start_control
from trivet_backend_torch.nesting import described, follow, gather, split
from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import execute_failure, torch
from trivet_backend_torch.settings import Settings
from trivet_backend_torch.signature import SCALARS, Argument
from trivet_backend_torch.validation import validate
from trivet_backend_torch.values import scalar, text_list


class TorchInstance(ArrayInstance):
    """Runs a network. PyTorch releases the GIL inside its operators.

    Constructed on the instance's thread, where it enters inference mode (or ``no_grad``) until :meth:`close`.
    """

    def __init__(self, context: ModelContext, settings: Settings, network: Network, device: Host) -> None:
        config = context.config
        self._name = f"'{context.name}' version {context.version}"
        self._network = network
        self._device = device
        self.batch_memory, self.batch_gpu_memory = device.batch_memory, device.batch_gpu_memory
        self._batches = config.max_batch_size > 0
        self._reset, self._start = _reset_of(context, settings, network)
        self._bound = bind_inputs(config, network.signature, self._start if self._reset else "")
        self._scalars = [name for name, argument in self._bound.items() if argument.kind in SCALARS]
        positions = [argument.name for argument in network.signature.arguments if not argument.keyword_only]
        positions += sorted(
            (a.name for a in self._bound.values() if a.name.startswith("*")), key=lambda name: int(name[1:])
        )
        self._positions = positions
        known = {argument.name for argument in network.signature.arguments}
        self._parts = {a.name: way for a in self._bound.values() if a.name not in known and (way := split(a.name))[1]}
        self._tuples = frozenset(a.name for a in network.signature.arguments if a.kind == "tuple")
        self._datatypes = {output.name: BY_CONFIG_VALUE[output.data_type] for output in config.output}
        self._shapes = {output.name: model_dims(output) for output in config.output}
        for state in config.sequence_batching.state:
            self._datatypes.setdefault(state.output_name, BY_CONFIG_VALUE[state.data_type])
            self._shapes.setdefault(state.output_name, tuple(state.dims))
        # A list of text has one dimension, and the configuration of a model that batches says [ 1 ] for one text each.
        self._text_columns = [
            name
            for name, datatype in self._datatypes.items()
            if datatype is BYTES and self._batches and self._shapes[name] == (1,)
        ]
        self._where = bind_outputs(config, network.signature, list(self._datatypes))
        validate(config, network.signature, self._bound, self._where)
        self._guard: AbstractContextManager[Any] = (
            torch.inference_mode() if settings.inference_mode else torch.no_grad()
        )
        self._guard.__enter__()

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        """One call of ``forward`` over the whole batch; one for each value where an argument is a Python number.

        Raises :class:`~trivet.errors.InvalidArgumentError` for text that is not UTF-8, and
        :class:`~trivet.errors.InternalError` or, out of memory, :class:`~trivet.errors.ResourceExhaustedError` with
        PyTorch's message where the run fails.
        """
        if self._reset is not None and (start := inputs.get(self._start)) is not None and start.numpy().any():
            self._guarded(self._reset)
        try:
            results = {name: self._shaped(name, value) for name, value in self._run(inputs, outputs).items()}
            fetched = self._device.fetch(results, self._datatypes, held(results), self.placed)
        except BaseException as error:
            # What it has begun still reads its inputs, which their owners are about to use for something else.
            with suppress(RuntimeError):
                self._device.settle()
            if isinstance(error, TrivetError) or not isinstance(error, Exception):
                raise
            raise execute_failure(error, self._name) from error
        for name in self._text_columns:
            if name in fetched:
                fetched[name] = fetched[name].reshape(-1, 1)
        return fetched

    def _guarded(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:
            raise execute_failure(error, self._name) from error

    def _run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Any]:
        values = {
            self._bound[name].name: self._value(tensor, self._bound[name])
            for name, tensor in inputs.items()
            if name in self._bound and self._bound[name].kind not in SCALARS
        }
        scalars = [(self._bound[name], inputs[name]) for name in self._scalars if name in inputs]
        if not scalars:
            return self._call(values, outputs)
        count = scalars[0][1].shape[0] if self._batches and scalars[0][1].shape else 1
        rows: dict[tuple[Any, ...], list[int]] = {}
        for row in range(count):
            key = tuple(scalar(tensor, argument.kind, row, count) for argument, tensor in scalars)
            rows.setdefault(key, []).append(row)
        names = [argument.name for argument, _ in scalars]
        if len(rows) == 1:
            return self._call({**values, **dict(zip(names, next(iter(rows)), strict=True))}, outputs)
        # A Python number is one for the whole call, and the requests of this batch do not agree on it.
        parts = []
        for key, chosen in rows.items():
            part = {name: _rows(value, chosen) for name, value in values.items()}
            parts.append((chosen, self._call({**part, **dict(zip(names, key, strict=True))}, outputs)))
        return {name: _joined([(chosen, part[name]) for chosen, part in parts], count) for name in outputs}

    def _value(self, tensor: Tensor, argument: Argument) -> Any:
        return text_list(tensor) if tensor.datatype is BYTES else self._device.feed(tensor)

    def _call(self, values: dict[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        if self._parts:
            gather(values, self._parts, self._tuples)
        elif self._network.signature.takes_dict:
            values = {self._positions[0]: values}
        arguments: list[Any] = []
        for name in self._positions:
            if name not in values:
                break  # an optional one was left out: what follows goes by name
            arguments.append(values.pop(name))
        result = self._network.call(arguments, values)
        return {name: self._pick(name, result) for name in outputs}

    def _pick(self, name: str, result: Any) -> Any:
        where = self._where[name]
        if isinstance(result, torch.Tensor) and where in (0, name):
            return result
        if isinstance(where, tuple):
            try:
                return follow(result, where)
            except LookupError:
                raise InternalError(f"the network's result has no '{name}'; it gave {described(result)}") from None
        if isinstance(result, Mapping):
            # Keys that only the run shows: by name, else by place.
            if name in result:
                return result[name]
            if isinstance(where, str) or where >= len(result):
                raise no_such_output(name, len(result))
            return list(result.values())[where]
        if isinstance(result, (tuple, list)) and not self._is_text(name, result):
            index = where if isinstance(where, int) else 0
            if index >= len(result):
                raise no_such_output(name, len(result))
            return result[index]
        if where not in (0, name):
            raise no_such_output(name, 1)
        return result  # text, or a number

    def _is_text(self, name: str, result: Any) -> bool:
        """Whether a list is one result; an empty one is where the output is text."""
        if not isinstance(result, list):
            return False
        return all(isinstance(item, str) for item in result) and (bool(result) or self._datatypes[name] is BYTES)

    def _shaped(self, name: str, value: Any) -> Any:
        """A scalar in the shape of the configuration, which has no rank 0."""
        if isinstance(value, torch.Tensor) and value.ndim == 0 and not self._batches:
            return value.reshape([max(dim, 1) for dim in self._shapes[name]])
        return value

    def close(self) -> None:
        """Let go of the network, on the thread that ran it."""
        self._guard.__exit__(None, None, None)
        network, self._network = self._network, None  # type: ignore[assignment]
        del network
        self._device.close()


def _reset_of(context: ModelContext, settings: Settings, network: Network) -> tuple[Callable[[], Any] | None, str]:
    """The method that ``RESET_METHOD`` names, and the control input that says when to call it."""
    if not settings.reset_method:
        return None, ""
    start = start_control(context.config)
    if not start:
        raise InvalidArgumentError(
            f"model '{context.name}' sets RESET_METHOD, which needs sequence_batching with a control_input of kind"
            " CONTROL_SEQUENCE_START"
        )
    method = getattr(network.module, settings.reset_method, None)
    if not callable(method):
        raise InvalidArgumentError(f"the network of model '{context.name}' has no method '{settings.reset_method}'")
    return method, start


def _rows(value: Any, rows: Sequence[int]) -> Any:
    return [value[row] for row in rows] if isinstance(value, list) else value[list(rows)]


def _joined(parts: Sequence[tuple[Sequence[int], Any]], count: int) -> Any:
    """Results of parts of a batch in the batch's order."""
    if isinstance(parts[0][1], list):
        ordered: list[Any] = [None] * count
        for rows, value in parts:
            for row, item in zip(rows, value, strict=True):
                ordered[row] = item
        return ordered
    if any(not isinstance(value, torch.Tensor) or value.shape[:1] != (len(rows),) for rows, value in parts):
        raise InternalError("an output has no row for each element of the batch")
    whole = torch.cat([value for _, value in parts])
    order = torch.tensor([row for rows, _ in parts for row in rows], device=whole.device)
    return torch.empty_like(whole).index_copy_(0, order, whole)
