"""Runs a typed model that is a generator function: it yields any number of results for one request."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.backend import RequestInstance
from trivet.errors import InternalError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse

from trivet_backend_python import scope
from trivet_backend_python.failures import describe
from trivet_backend_python.modules import ModelPackage
from trivet_backend_python.scope import Phase, Scope
from trivet_backend_python.typed.instance import TypedCalls


class TypedStream(RequestInstance):
    """Sends what the generator yields, one response each; a caller that goes away closes it."""

    def __init__(self, calls: TypedCalls, package: ModelPackage) -> None:
        self._calls = calls
        self._package = package

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        """One request after the other; a failure ends the stream of its own request."""
        for request in requests:
            token = scope.current.set(Scope(self._package, Phase.EXECUTE, (request,)))
            try:
                self._stream(request)
                final = InferenceResponse()
            except TrivetError as error:
                final = InferenceResponse(error=error)
            except BaseException as error:
                name = self._package.context.name
                self._package.logger.error("model '%s' failed in the middle of a stream", name, exc_info=error)
                final = InferenceResponse(error=InternalError(f"model '{name}' failed: {describe(error)}"))
            finally:
                scope.current.reset(token)
            request.respond(final)

    def close(self) -> None:
        """Calls the ``close`` of the model's object, where it has one."""
        self._calls.close()

    def _stream(self, request: InferenceRequest) -> None:
        calls = self._calls
        generator = calls.call(calls.arguments(request.inputs))
        wanted = None if request.outputs is None else {output.name for output in request.outputs}
        try:
            while not request.cancelled:
                try:
                    values = [next(generator)]
                except StopIteration:
                    break
                tensors = calls.outputs(values, ()).values()
                outputs = [tensor for tensor in tensors if wanted is None or tensor.name in wanted]
                request.respond(InferenceResponse(outputs, final=False))
        finally:
            generator.close()
