"""A TorchServe handler as a model: the rows of all requests of a batch are one list of dictionaries for ``handle``.

An input named ``data`` of TYPE_STRING is what a client of TorchServe posts; any other inputs are keys of the dictionary
too. An answer becomes a row of the output: bytes and text as they are, anything else as JSON, or numbers where the
configuration says so.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from trivet.backend import BackendInstance, BackendModel, InstanceContext, ModelContext, RequestInstance
from trivet.config import ModelConfig
from trivet.datatypes import BF16, BY_CONFIG_VALUE, BYTES, DataType
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.private_code import PrivatePackage
from trivet.tensor import Tensor, object_array

from trivet_backend_torch.devices import DeviceUse, Host, open_device
from trivet_backend_torch.handlers import interface
from trivet_backend_torch.handlers.archive import Archive, unpack
from trivet_backend_torch.runtime import describe, execute_failure, torch
from trivet_backend_torch.settings import Settings
from trivet_backend_torch.threads import prepare_thread

INPUT, OUTPUT = "data", "prediction"
_YAML = "model-config.yaml"
_MAX_INT32 = (1 << 31) - 1


def complete_handler(context: ModelContext, path: Path) -> None:
    """Fill in one text input and output, and the batching of ``model-config.yaml``, where nothing is configured.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a damaged archive.
    """
    config = context.config
    archive = unpack(path)
    try:
        options = _yaml_config(archive)
    finally:
        archive.close()
    if not config.input:
        config.input.add(name=INPUT, data_type=BYTES.config_value, dims=(1,))
    if not config.output:
        config.output.add(name=OUTPUT, data_type=BYTES.config_value, dims=(1,))
    if config.max_batch_size == 0:
        # A handler takes a list of any length; its file says how many it is meant for.
        config.max_batch_size = _positive(options, "batchSize", 1)
    if config.max_batch_size > 1 and config.WhichOneof("scheduling_choice") is None:
        delay_ms = _positive(options, "maxBatchDelay", 100) if "batchSize" in options else 0
        config.dynamic_batching.max_queue_delay_microseconds = delay_ms * 1000


def _positive(options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name)
    if not isinstance(value, int) or value <= 0:
        return default
    if value > _MAX_INT32:
        raise InvalidArgumentError(f"'{name}' of the archive's configuration is {value}, expected {_MAX_INT32} or less")
    return value


def _yaml_config(archive: Archive) -> dict[str, Any]:
    file = archive.folder / str(archive.model.get("configFile") or _YAML)
    if not file.is_file():
        return {}
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"'{file.name}' of the archive is no YAML: {error}") from error
    return loaded if isinstance(loaded, dict) else {}


class HandlerModel(BackendModel):
    """One archive, unpacked once for all instances."""

    def __init__(self, context: ModelContext, settings: Settings, path: Path) -> None:
        interface.provide()
        self._context = context
        self._settings = settings
        self._archive = unpack(path)

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        """Construct and initialize the handler, on the instance's thread.

        Raises :class:`~trivet.errors.InvalidArgumentError` with what the handler raises, and for one that is not there.
        """
        prepare_thread(self._settings)
        device = open_device(context, self._context.name, DeviceUse())
        # Each instance has its own, as a worker process of TorchServe has: handlers keep state in their module.
        code = PrivatePackage([self._archive.folder], f"The code of the archive of model '{self._context.name}'.")
        try:
            return self._instance(context, device, code)
        except BaseException:
            code.close()
            device.close()
            raise

    def _instance(self, context: InstanceContext, device: Host, code: PrivatePackage) -> BackendInstance:
        from trivet_backend_torch.ts.context import Context, Metrics  # noqa: PLC0415 - no model needs it but these

        name = self._context.name
        handler_context = Context(
            name,
            str(self._archive.folder),
            self._archive.manifest,
            max(self._context.config.max_batch_size, 1),
            context.device_id if context.kind == "GPU" else None,
            "0.12.0",
            metrics=Metrics(self._context.logger),
            model_yaml_config=_yaml_config(self._archive),
        )
        handler_context.model_code = code
        try:
            handle = self._entry_point(handler_context, code)
        except TrivetError:
            raise
        except ModuleNotFoundError as error:
            requirements = self._archive.model.get("requirementsFile")
            raise InvalidArgumentError(
                f"failed to load model '{name}': its handler needs the module '{error.name}'"
                + (f"; install what '{requirements}' of the archive lists" if requirements else "")
            ) from error
        except Exception as error:
            raise InvalidArgumentError(
                f"failed to load model '{name}': its handler '{self._archive.handler}' raised {type(error).__name__}:"
                f" {describe(error)}"
            ) from error
        return HandlerInstance(self._context, handle, handler_context, device, code)

    def _entry_point(self, context: Any, code: PrivatePackage) -> Callable[[Any, Any], Any]:
        """As TorchServe finds it: a function of the module, else the ``handle`` of its one class, initialized."""
        file, _, function = self._archive.handler.partition(":")
        module_name = file.removesuffix(".py").replace("/", ".")
        if self._archive.folder.joinpath(*module_name.split(".")).with_suffix(".py").is_file():
            module = code.load(module_name)
        elif file in interface.OWN:
            module = interface.own(file)
        else:
            why = f": {interface.ELSEWHERE[file]}" if file in interface.ELSEWHERE else ""
            raise InvalidArgumentError(
                f"failed to load model '{self._context.name}': its handler '{file}' is not in the archive, and none of"
                f" those that need not be: {', '.join(interface.OWN)}{why}"
            )
        entry = getattr(module, function or "handle", None)
        if inspect.isfunction(entry):
            entry(None, context)
            return entry
        service = _service_class(module, function)()
        service.initialize(context)
        handle: Callable[[Any, Any], Any] = service.handle
        return handle

    def close(self) -> None:
        """Remove what was unpacked."""
        self._archive.close()


def _service_class(module: ModuleType, wanted: str) -> Any:
    from trivet_backend_torch.ts.utils.util import list_classes_from_module  # noqa: PLC0415

    classes = [cls for cls in list_classes_from_module(module) if hasattr(cls, "handle")]
    if wanted:
        classes = [cls for cls in classes if cls.__name__ == wanted]
        if not classes:
            raise InvalidArgumentError(
                f"the handler has neither a function '{wanted}' nor a class of that name with a method 'handle', which"
                " the manifest names after the colon"
            )
    if len(classes) != 1:
        raise InvalidArgumentError(
            "Expected only one class in custom service code or a function entry point, and the handler has"
            f" {len(classes)}"
            " classes with a method 'handle'"
        )
    return classes[0]


class HandlerInstance(RequestInstance):
    """Calls ``handle(data, context)`` with a dictionary for each row of the batch."""

    def __init__(
        self,
        context: ModelContext,
        handle: Callable[[Any, Any], Any],
        handler_context: Any,
        device: Host,
        code: PrivatePackage,
    ) -> None:
        """``code`` is this instance's, which closes it."""
        self._name = f"'{context.name}' version {context.version}"
        self._handle = handle
        self._context = handler_context
        self._device = device
        self._code = code
        self._batches = context.config.max_batch_size > 0
        self._outputs = _outputs_of(context.config)

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        """One call for all. As in TorchServe, an exception of the handler fails the whole batch.

        But where the handler says that it is a caller's fault, each request gets a call of its own, so that the fault
        costs no other.
        """
        try:
            return self._together(requests)
        except InvalidArgumentError:
            if len(requests) == 1:
                raise
        return [self._alone(request) for request in requests]

    def _alone(self, request: InferenceRequest) -> InferenceResponse:
        try:
            (response,) = self._together((request,))
        except TrivetError as error:
            return InferenceResponse(error=error)
        return response

    def _together(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        rows: list[dict[str, Any]] = []
        counts: list[int] = []
        ids: list[str] = []
        headers: list[dict[str, str]] = []
        for request in requests:
            made = self._rows(request)
            rows += made
            counts.append(len(made))
            ids += [request.id] * len(made)
            headers += [{key: str(value) for key, value in request.parameters.items()}] * len(made)
        self._context.begin_batch(ids, headers)
        try:
            answers = self._handle(rows, self._context)
        except Exception as error:
            status = getattr(error, "error_code", 500)
            if isinstance(status, int) and 400 <= status < 500:
                raise InvalidArgumentError(f"{getattr(error, 'message', error)} (model {self._name})") from error
            raise execute_failure(error, self._name) from error
        if not isinstance(answers, (list, tuple)) or len(answers) != len(rows):
            given = len(answers) if isinstance(answers, (list, tuple)) else type(answers).__name__
            raise InternalError(
                f"number of batch response mismatched, expect: {len(rows)}, got: {given} (model {self._name})"
            )
        responses, start = [], 0
        for request, count in zip(requests, counts, strict=True):
            responses.append(self._response(request, answers[start : start + count]))
            start += count
        return responses

    def _rows(self, request: InferenceRequest) -> list[dict[str, Any]]:
        columns = {name: tensor.numpy() for name, tensor in request.inputs.items()}
        if not self._batches:
            return [{name: _element(column, request.inputs[name]) for name, column in columns.items()}]
        return [
            {name: _element(column[row], request.inputs[name]) for name, column in columns.items()}
            for row in range(request.batch_size)
        ]

    def _response(self, request: InferenceRequest, answers: Sequence[Any]) -> InferenceResponse:
        wanted = None if request.outputs is None else {output.name for output in request.outputs}
        try:
            tensors = [
                self._tensor(name, datatype, dims, [self._part(answer, name) for answer in answers])
                for name, (datatype, dims) in self._outputs.items()
                if wanted is None or name in wanted
            ]
        except TrivetError as error:
            return InferenceResponse(error=error)
        except (TypeError, ValueError, OverflowError) as error:
            return InferenceResponse(
                error=InternalError(f"the handler's answer fits no output: {error} (model {self._name})")
            )
        return InferenceResponse(tensors)

    def _part(self, answer: Any, name: str) -> Any:
        """What of an answer belongs to an output: all of it where there is one, else the value of that name."""
        if len(self._outputs) == 1 and not (isinstance(answer, dict) and set(answer) == {name}):
            return answer
        if not isinstance(answer, dict) or name not in answer:
            raise InternalError(f"the handler's answer has no '{name}' (model {self._name})")
        return answer[name]

    def _tensor(self, name: str, datatype: DataType, dims: tuple[int, ...], parts: list[Any]) -> Tensor:
        if datatype is BYTES:
            array = object_array([_encoded(part) for part in parts], (len(parts),))
            shape = tuple(1 if dim < 0 else dim for dim in dims)
            return Tensor.from_numpy(
                name, array.reshape((len(parts), *shape) if self._batches else shape or (1,)), BYTES
            )
        arrays = [np.asarray(_plain(part), dtype=datatype.numpy) for part in parts]
        if len(dims) == 1 and arrays[0].ndim == 0:
            arrays = [array.reshape(1) for array in arrays]
        # Copied, as the handler may keep what it answered with.
        return Tensor.from_numpy(name, np.stack(arrays) if self._batches else arrays[0].copy(), datatype)

    def close(self) -> None:
        """Let go of the handler and its code."""
        del self._handle
        self._code.close()
        self._device.close()


def _outputs_of(config: ModelConfig) -> dict[str, tuple[DataType, tuple[int, ...]]]:
    outputs = {output.name: (BY_CONFIG_VALUE[output.data_type], tuple(output.dims)) for output in config.output}
    for name, (datatype, _) in outputs.items():
        if datatype is BF16:
            raise InvalidArgumentError(
                f"output '{name}' of model '{config.name}' is TYPE_BF16, which no handler can give"
            )
    return outputs


def _element(value: Any, tensor: Tensor) -> Any:
    """A row: a ``bytearray`` for one text, as TorchServe gives what was posted; else an array."""
    if tensor.datatype is BYTES:
        items = [value] if isinstance(value, bytes) else value.reshape(-1).tolist()
        taken = [bytearray(item) if isinstance(item, bytes) else bytearray(str(item), "utf-8") for item in items]
        return taken[0] if len(taken) == 1 else taken
    return np.array(value)  # a copy: the handler may write to it


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value


def _encoded(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, default=_to_json).encode()


def _to_json(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, (np.ndarray, np.generic)):
        return plain.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
