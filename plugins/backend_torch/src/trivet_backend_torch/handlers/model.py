"""A TorchServe handler as a model: the rows of all requests of a batch are one list of dictionaries for ``handle``.

An input named ``data`` of TYPE_STRING is what a client of TorchServe posts; any other inputs are keys of the dictionary
too. An answer becomes a row of the output: bytes and text as they are, anything else as JSON, or numbers where the
configuration says so.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trivet.backend import BackendInstance, BackendModel, InstanceContext, ModelContext
from trivet.datatypes import BYTES
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.private_code import PrivatePackage

from trivet_backend_torch.devices import DeviceUse, Host, open_device
from trivet_backend_torch.handlers import interface
from trivet_backend_torch.handlers.archive import Archive, unpack
from trivet_backend_torch.handlers.folder import enter, explain_missing
from trivet_backend_torch.handlers.options import apply_options, check_options, log_unused, read_options
from trivet_backend_torch.runtime import describe, torch
from trivet_backend_torch.settings import Settings
from trivet_backend_torch.threads import prepare_thread

INPUT, OUTPUT = "data", "prediction"


def complete_handler(context: ModelContext, path: Path) -> None:
    """Fill in one text input and output, and what ``model-config.yaml`` says, where nothing is configured.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a damaged archive.
    """
    config = context.config
    archive = unpack(path)
    try:
        options = read_options(archive)
        check_options(options, context.name)
        find_handler(archive, context.name)
    finally:
        archive.close()
    if not config.input:
        config.input.add(name=INPUT, data_type=BYTES.config_value, dims=(1,))
    if not config.output:
        config.output.add(name=OUTPUT, data_type=BYTES.config_value, dims=(1,))
    apply_options(config, options, torch.cuda.device_count())


def find_handler(archive: Archive, model_name: str) -> str:
    """The name of the handler's module in the archive, "" for one of TorchServe's own that is here.

    Raises :class:`~trivet.errors.InvalidArgumentError` where it is neither.
    """
    file = archive.handler.partition(":")[0]
    module = file.removesuffix(".py").replace("/", ".")
    if archive.folder.joinpath(*module.split(".")).with_suffix(".py").is_file():
        return module
    if file in interface.OWN:
        return ""
    why = f": {interface.ELSEWHERE[file]}" if file in interface.ELSEWHERE else ""
    raise InvalidArgumentError(
        f"failed to load model '{model_name}': its handler '{file}' is not in the archive, and none of"
        f" those that need not be: {', '.join(interface.OWN)}{why}"
    )


class HandlerModel(BackendModel):
    """One archive, unpacked once for all instances."""

    def __init__(self, context: ModelContext, settings: Settings, path: Path) -> None:
        interface.provide()
        self._context = context
        self._settings = settings
        self._archive = unpack(path)
        try:
            self._options = read_options(self._archive)
            check_options(self._options, context.name)
            log_unused(self._options, context.name, context.logger)
            self._module_name = find_handler(self._archive, context.name)
        except BaseException:
            self._archive.close()
            raise

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
        # No model needs these but such.
        from trivet_backend_torch.handlers.instance import HandlerInstance  # noqa: PLC0415
        from trivet_backend_torch.handlers.metrics import HandlerMetrics  # noqa: PLC0415
        from trivet_backend_torch.ts.context import Context  # noqa: PLC0415

        name = self._context.name
        metrics = HandlerMetrics(self._context.metrics, name, self._context.logger)
        handler_context = Context(
            name,
            str(self._archive.folder),
            self._archive.manifest,
            max(self._context.config.max_batch_size, 1),
            context.device_id if context.kind == "GPU" else None,
            "0.12.0",
            metrics=metrics,
            model_yaml_config=copy.deepcopy(self._options),
        )
        handler_context.model_code = code
        refused = enter(self._archive.folder)
        if refused is not None:
            self._context.logger.info(
                "model '%s' opens files relative to the server's working directory, not to the archive: %s",
                name,
                refused,
            )
        try:
            handle = self._entry_point(handler_context, code)
        except TrivetError:
            metrics.close()
            raise
        except Exception as error:
            metrics.close()
            self._context.logger.warning("the handler of model '%s' failed", name, exc_info=error)
            raise InvalidArgumentError(f"failed to load model '{name}': {self._failure(error, refused)}") from error
        content_type = self._settings.content_type
        return HandlerInstance(self._context, handle, handler_context, device, code, content_type)

    def _failure(self, error: Exception, refused: OSError | None) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name:
            what = interface.missing(error.name, self._archive.folder, self._archive.model.get("requirementsFile"))
            return f"its handler needs the module '{error.name}'; {what}"
        missing = explain_missing(error, self._archive.folder, refused) if isinstance(error, FileNotFoundError) else ""
        return f"its handler '{self._archive.handler}' raised {type(error).__name__}: {describe(error)}{missing}"

    def _entry_point(self, context: Any, code: PrivatePackage) -> Callable[[Any, Any], Any]:
        """As TorchServe finds it: a function of the module, else the ``handle`` of its one class, initialized."""
        file, _, function = self._archive.handler.partition(":")
        module = code.load(self._module_name) if self._module_name else interface.own(file)
        entry = getattr(module, function or "handle", None)
        if callable(entry) and not inspect.isclass(entry):
            entry(None, context)
            named: Callable[[Any, Any], Any] = entry
            return named
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
