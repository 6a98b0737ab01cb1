"""Runs a typed model on batches of arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.backend import ArrayInstance, InstanceContext, OutputValue
from trivet.datatypes import BYTES
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, object_array

from trivet_backend_python import scope
from trivet_backend_python.failures import describe
from trivet_backend_python.memory import SMALL, is_released, read_only
from trivet_backend_python.modules import ModelPackage
from trivet_backend_python.scope import Phase
from trivet_backend_python.typed.signature import Context, Signature, TensorSignature


class TypedCalls:
    """The model's function, or its own object of the model's class, and the way to it and back."""

    def __init__(self, signature: Signature, package: ModelPackage, instance: InstanceContext) -> None:
        """Raises :class:`~trivet.errors.InternalError` with what the class's ``__init__`` raises."""
        model = package.context
        self._package = package
        self._signature = signature
        self._model_name = model.name
        self._batched = signature.max_batch_size > 0
        self._shared_dims = _shared_dims(signature)
        context = Context(
            model_name=model.name,
            version=model.version,
            path=model.version_path,
            parameters=model.parameters,
            instance_name=instance.name,
            kind=instance.kind,
            device_id=instance.device_id,
            logger=model.logger,
        )
        try:
            with scope.running(package, Phase.INITIALIZE):
                self._call = signature.create(context)
        except BaseException as error:
            raise InternalError(describe(error)) from error

    def arguments(self, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Host arrays by name, the batch in front where there is one, read-only as others may see them.

        Raises :class:`~trivet.errors.InvalidArgumentError` for inputs that are not UTF-8 text or disagree on a
        dimension.
        """
        arguments = {
            tensor.name: self._argument(tensor, inputs[tensor.name])
            for tensor in self._signature.inputs
            if tensor.name in inputs
        }
        if self._shared_dims:
            self._check_shared_dims(inputs)
        return arguments

    def outputs(self, values: list[Any], batch: tuple[int, ...]) -> dict[str, Tensor]:
        """The tensors of what the model returned or yielded, the one item of ``values``, which is changed.

        Raises :class:`~trivet.errors.InternalError` where that is not what the annotations declare.
        """
        signature = self._signature
        if signature.returns_tuple:
            result = values.pop()
            if not isinstance(result, tuple) or len(result) != len(signature.outputs):
                raise InternalError(
                    f"model '{self._model_name}' returned {type(result).__name__}, expected the named tuple with the"
                    f" outputs {', '.join(output.name for output in signature.outputs)} of its annotation"
                )
            values += result
            del result
        return {
            output.name: self._result(output, values, index, batch) for index, output in enumerate(signature.outputs)
        }

    def call(self, arguments: Mapping[str, NDArray[Any]]) -> Any:
        """What the model returns. Raises what it raises."""
        return self._call(**arguments)

    def close(self) -> None:
        """Calls the ``close`` of the model's object, where it has one."""
        close = getattr(self._call, "close", None) if isinstance(self._signature.target, type) else None
        del self._call
        if close is not None:
            with scope.running(self._package, Phase.FINALIZE):
                close()

    def _argument(self, tensor: TensorSignature, given: Tensor) -> NDArray[Any]:
        array = given.numpy()
        if not tensor.dims and not self._batched:
            array = array.reshape(())
        if not tensor.element.text:
            return read_only(array)
        try:
            texts = [item.decode() for item in array.reshape(-1).tolist()]
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"input '{tensor.name}' holds bytes that are not UTF-8 text: {error}") from None
        return object_array(texts, array.shape)

    def _result(self, output: TensorSignature, values: list[Any], index: int, batch: tuple[int, ...]) -> Tensor:
        """One output as a tensor that later writes of the model cannot change.

        It stays in ``values[index]`` meanwhile: a local name would be one more reference for :func:`is_released`.
        """
        datatype = output.element.datatype
        if datatype is BYTES:
            texts = np.asarray(values[index], dtype=np.object_)
            items = [item if isinstance(item, bytes) else str(item).encode() for item in texts.reshape(-1).tolist()]
            values[index] = object_array(items, texts.shape)
        else:
            values[index] = np.asarray(values[index])
            if values[index].dtype != datatype.numpy:
                if not np.can_cast(values[index].dtype, datatype.numpy, "same_kind"):
                    raise InternalError(
                        f"output '{output.name}' of model '{self._model_name}' has dtype {values[index].dtype}, which"
                        f" does not convert to {datatype}"
                    )
                values[index] = values[index].astype(datatype.numpy)
            elif values[index].nbytes <= SMALL or not is_released(values[index]):
                values[index] = values[index].copy()
        shape: tuple[int, ...] = values[index].shape
        expected = batch + output.dims
        if len(shape) != len(expected) or any(
            size != wanted
            for size, wanted in zip(shape, expected, strict=True)
            if isinstance(wanted, int) and wanted != -1
        ):
            raise InternalError(
                f"output '{output.name}' of model '{self._model_name}' has shape {list(shape)}, expected"
                f" [{', '.join(map(str, expected))}]"
            )
        return Tensor.from_numpy(output.name, values[index] if shape else values[index].reshape(1), datatype)

    def _check_shared_dims(self, inputs: Mapping[str, Tensor]) -> None:
        """One name means one size, in whichever inputs it stands."""
        for dim, places in self._shared_dims.items():
            sizes = {name: inputs[name].shape[axis + self._batched] for name, axis in places if name in inputs}
            if len(set(sizes.values())) > 1:
                shown = ", ".join(f"{size} in '{name}'" for name, size in sizes.items())
                raise InvalidArgumentError(
                    f"inputs of model '{self._model_name}' disagree on dimension '{dim}': {shown}"
                )


class TypedInstance(ArrayInstance):
    """A model that returns: it is called once for each batch."""

    def __init__(self, calls: TypedCalls, package: ModelPackage, *, batched: bool) -> None:
        self._calls = calls
        self._package = package
        self._batched = batched

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        """Call the model and convert its results. Raises what :class:`TypedCalls` and the model raise."""
        calls = self._calls
        arguments = calls.arguments(inputs)
        with scope.running(self._package, Phase.EXECUTE):
            # A list from the start: a local name would be one more reference for :func:`is_released`.
            values = [calls.call(arguments)]
        return calls.outputs(values, (next(iter(inputs.values())).shape[0],) if self._batched else ())

    def close(self) -> None:
        """Calls the ``close`` of the model's object, where it has one."""
        self._calls.close()


def _shared_dims(signature: Signature) -> dict[str, list[tuple[str, int]]]:
    """Names of dimensions that stand in several places, and where: input and axis without the batch."""
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for tensor in signature.inputs:
        for axis, dim in enumerate(tensor.dims):
            if isinstance(dim, str):
                places[dim].append((tensor.name, axis))
    return {dim: found for dim, found in places.items() if len(found) > 1}
