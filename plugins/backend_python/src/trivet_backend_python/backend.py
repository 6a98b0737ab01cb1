"""The backend: finds out which of the two ways a ``model.py`` is written in, and loads it."""

from __future__ import annotations

import sys
from types import ModuleType

from trivet.backend import Backend, BackendInstance, BackendModel, InstanceContext, ModelContext
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, UnimplementedError

from trivet_backend_python import pb_utils, scope
from trivet_backend_python.completion import auto_complete
from trivet_backend_python.failures import describe
from trivet_backend_python.instance import TritonInstance
from trivet_backend_python.modules import ModelPackage
from trivet_backend_python.scope import Phase
from trivet_backend_python.typed.instance import TypedCalls, TypedInstance
from trivet_backend_python.typed.signature import TRITON_CLASS, Signature, find_model
from trivet_backend_python.typed.streaming import TypedStream

_TRITON_MODULE = "triton_python_backend_utils"

_PROCESS_OPTIONS = frozenset(
    (
        "shm-default-byte-size",
        "shm-growth-byte-size",
        "shm-region-prefix-name",
        "stub-timeout-seconds",
        "thread-pool-size",
    )
)
"""Options of Triton's Python backend that are about its processes and what they share."""

_SERVER_OPTIONS = frozenset(
    ("auto-complete-config", "backend-directory", "default-max-batch-size", "min-compute-capability")
)
"""Options that Triton's server gives to every backend."""


class PythonBackend(Backend):
    """Runs Python models on threads of the server's process."""

    def __init__(self) -> None:
        # Whatever else may be installed under Triton's name, models get this one.
        sys.modules[_TRITON_MODULE] = pb_utils
        self._mentioned: set[str] = set()

    def auto_complete(self, context: ModelContext) -> None:
        """Run ``auto_complete_config``, or read the annotations of a typed model.

        Raises :class:`~trivet.errors.TrivetError` saying what is wrong with the code, or with what it says.
        """
        package, module = _import(context)
        try:
            signature = find_model(module)
            if signature is not None:
                signature.complete(context.config)
            else:
                with scope.running(package, Phase.IMPORT):
                    auto_complete(_triton_class(module, context), context)
        finally:
            package.close()

    def load(self, context: ModelContext) -> BackendModel:
        """Import the model's code. Raises :class:`~trivet.errors.TrivetError` saying what is wrong with it."""
        self._mention_options(context)
        to_host = _force_cpu(context)
        if "EXECUTION_ENV_PATH" in context.parameters:
            raise UnimplementedError(
                f"model '{context.name}' sets the parameter EXECUTION_ENV_PATH to run in a Python environment of its"
                " own, which trivet-backend-python does not support yet: install what the model imports into the"
                " server's environment and remove the parameter"
            )
        package, module = _import(context)
        try:
            signature = find_model(module)
            if signature is not None:
                signature.check(context.config)
                return TypedModel(package, signature)
            return TritonModel(package, module, to_host=to_host)
        except BaseException:
            package.close()
            raise

    def _mention_options(self, context: ModelContext) -> None:
        """Say once of each option that does nothing that it does nothing."""
        for key in sorted(context.backend_options.keys() - _SERVER_OPTIONS - self._mentioned):
            self._mentioned.add(key)
            why = (
                "models run in the server's own process"
                if key in _PROCESS_OPTIONS
                else "trivet-backend-python has no option of this name"
            )
            context.logger.warning("--backend-config=python,%s has no effect: %s", key, why)


class TritonModel(BackendModel):
    """A ``model.py`` with a class ``TritonPythonModel``.

    In Triton each instance imports the file in a process of its own, and models rely on globals that no other instance
    touches. So each instance has an import of its own here too.
    """

    def __init__(self, package: ModelPackage, module: ModuleType, *, to_host: bool) -> None:
        """``package`` and ``module`` are the import of the first instance."""
        model_class = _triton_class(module, package.context)
        if not callable(getattr(model_class, "execute", None)):
            raise InternalError(f"Python model {module.__file__} does not implement `execute` method.")
        self._context = package.context
        self._to_host = to_host
        self._unused = [(package, module)]

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        """Import the code once more, and initialize. Raises :class:`~trivet.errors.InternalError` where that fails."""
        try:
            package, module = self._unused.pop()  # atomic, as instances are created concurrently
        except IndexError:
            package, module = _import(self._context)
        try:
            return TritonInstance(package, _triton_class(module, self._context), context, to_host=self._to_host)
        except BaseException:
            package.close()
            raise

    def close(self) -> None:
        """Instances close their own imports; this is for one that no instance took."""
        for package, _ in self._unused:
            package.close()


class TypedModel(BackendModel):
    """A ``model.py`` with a function or class marked ``@model``; its instances share one import."""

    def __init__(self, package: ModelPackage, signature: Signature) -> None:
        self._package = package
        self._signature = signature

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        """Raises :class:`~trivet.errors.InternalError` with what the class's ``__init__`` raises."""
        signature = self._signature
        calls = TypedCalls(signature, self._package, context)
        if signature.streams:
            return TypedStream(calls, self._package)
        return TypedInstance(calls, self._package, batched=signature.max_batch_size > 0)

    def close(self) -> None:
        """Free the code, when no instance runs it any more."""
        self._package.close()


def _import(context: ModelContext) -> tuple[ModelPackage, ModuleType]:
    file = context.version_path / (context.default_model_filename or "model.py")
    if not file.is_file():
        raise InvalidArgumentError(
            f"model '{context.name}' has no file '{file}'; put its code there, or name another file in"
            " 'default_model_filename'"
        )
    package = ModelPackage(context)
    try:
        with scope.running(package, Phase.IMPORT):
            return package, package.load_file(file)
    except BaseException as error:
        package.close()
        if isinstance(error, TrivetError):
            raise
        raise InternalError(describe(error)) from error


def _triton_class(module: ModuleType, context: ModelContext) -> type:
    try:
        found: type = getattr(module, TRITON_CLASS)
    except AttributeError:
        raise InternalError(
            f"AttributeError: module '{context.version}.model' has no attribute '{TRITON_CLASS}'; define the class in"
            f" {module.__file__}, or mark a function with @trivet_backend_python.model"
        ) from None
    return found


def _force_cpu(context: ModelContext) -> bool:
    value = context.parameters.get("FORCE_CPU_ONLY_INPUT_TENSORS", "yes")
    if value not in ("yes", "no"):
        raise InvalidArgumentError(
            f"model '{context.name}' sets the parameter FORCE_CPU_ONLY_INPUT_TENSORS to '{value}', expected"
            " 'yes' or 'no'"
        )
    return value == "yes"
