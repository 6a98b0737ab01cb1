"""One instance of a Triton Python model: its ``TritonPythonModel`` object, and the way to it and back."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from trivet.backend import InstanceContext, ModelContext, RequestInstance
from trivet.config import to_json
from trivet.errors import InternalError
from trivet.inference import InferenceRequest as KernelRequest
from trivet.inference import InferenceResponse as KernelResponse
from trivet.inference import ParameterValue

from trivet_backend_python import scope
from trivet_backend_python.coroutines import CoroutineLoop
from trivet_backend_python.failures import describe
from trivet_backend_python.modules import ModelPackage
from trivet_backend_python.pb_utils.errors import to_kernel
from trivet_backend_python.pb_utils.request import ServedRequest, Service
from trivet_backend_python.pb_utils.response import InferenceResponse
from trivet_backend_python.scope import Phase, Scope

_NO_PARAMETERS: Mapping[str, ParameterValue] = {}


class _BadReturnError(Exception):
    """What ``execute`` returned is not what it has to return."""


class TritonInstance(RequestInstance):
    """Calls ``initialize``, ``execute`` and ``finalize``. Owns the import of the model's code, and closes it."""

    def __init__(self, package: ModelPackage, model_class: Any, context: InstanceContext, *, to_host: bool) -> None:
        """``to_host``: inputs on a device are given as host arrays.

        Raises :class:`~trivet.errors.InternalError` with the model's exception.
        """
        self._package = package
        self._name = context.name
        self._logger = package.logger
        config = package.context.config
        self._decoupled = config.model_transaction_policy.decoupled
        # Triton's rule: such a model goes on executing requests while the coroutines of others wait.
        self._concurrent = self._decoupled and inspect.iscoroutinefunction(model_class.execute)
        self._declared = frozenset(output.name for output in config.output)
        # Outputs for the sequence scheduler, which no caller sees.
        self._states = frozenset(state.output_name for state in config.sequence_batching.state)
        self._all = self._declared | self._states
        self._undeclared: set[str] = set()
        # The response cache takes its copy when the model may have gone on already.
        self._cached = config.response_cache.enable
        self._service = Service(
            self._answer,
            self._declared,
            decoupled=self._decoupled,
            to_host=to_host,
            reschedules=config.sequence_batching.iterative_sequence,
            concurrent=self._concurrent,
        )
        self._runner: asyncio.Runner | None = None
        self._coroutines: CoroutineLoop | None = None
        try:
            with scope.running(package, Phase.INITIALIZE):
                self._model = model_class()
                initialize = getattr(self._model, "initialize", None)
                if initialize is not None:
                    initialize(_arguments(package.context, context))
        except BaseException as error:
            raise InternalError(describe(error)) from error
        self._execute = self._model.execute

    def execute(self, requests: Sequence[KernelRequest]) -> Sequence[KernelResponse | None]:
        """A response per request, ``None`` for one that the model answers through its response sender.

        Raises :class:`~trivet.errors.InternalError` where the model failed, or returned no answers.
        """
        served = [ServedRequest(request, self._service) for request in requests]
        token = scope.current.set(Scope(self._package, Phase.EXECUTE, requests, holds_instance=not self._concurrent))
        try:
            returned = self._execute(served)
            if type(returned) is not list:
                if self._concurrent and inspect.iscoroutine(returned):
                    self._start(returned, requests, served)
                    return [None] * len(requests)
                returned = self._as_list(returned, len(served))
            return self._answers(requests, served, returned)
        except BaseException as error:
            raise self._failure(error) from error
        finally:
            scope.current.reset(token)

    def close(self) -> None:
        """Raises what ``finalize`` raises, but frees everything all the same."""
        try:
            if self._coroutines is not None:
                self._coroutines.close()
            finalize = getattr(self._model, "finalize", None)
            if finalize is not None:
                with scope.running(self._package, Phase.FINALIZE):
                    finalize()
        finally:
            if self._runner is not None:
                self._runner.close()
            del self._execute, self._model
            self._package.close()

    def _start(
        self, coroutine: Coroutine[Any, Any, Any], requests: Sequence[KernelRequest], served: list[ServedRequest]
    ) -> None:
        """Run the coroutine of an ``execute`` beside those of other requests."""
        if self._coroutines is None:
            self._coroutines = CoroutineLoop(f"{self._name}-async")
        self._coroutines.start(self._finish(coroutine, requests, served), contextvars.copy_context())

    async def _finish(
        self, coroutine: Coroutine[Any, Any, Any], requests: Sequence[KernelRequest], served: list[ServedRequest]
    ) -> None:
        try:
            returned = await coroutine
            self._answers(requests, served, self._as_list(returned, len(served)))
        except BaseException as error:  # noqa: BLE001 - whatever a model raises fails its requests and nothing else
            failure = self._failure(error)
            for request in requests:
                if not request.done:
                    request.respond(KernelResponse(error=failure))

    def _as_list(self, returned: Any, count: int) -> list[Any]:
        """What ``execute`` returned, where it is not a list at once."""
        if inspect.iscoroutine(returned):
            if self._runner is None:
                self._runner = asyncio.Runner()
            returned = self._runner.run(returned, context=contextvars.copy_context())
        if returned is None:
            return [None] * count
        if not isinstance(returned, list):
            raise _BadReturnError(f"Expected a list in the execute return, found type '{type(returned)}'.")
        return returned

    def _answers(
        self, requests: Sequence[KernelRequest], served: list[ServedRequest], returned: list[Any]
    ) -> list[KernelResponse | None]:
        """The kernel's responses; ``None`` for a request that the model answers through its response sender."""
        if len(returned) != len(requests):
            raise _BadReturnError(
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects."
                f" InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) size is:{len(returned)}\n"
            )
        answers: list[KernelResponse | None] = []
        for index, response in enumerate(returned):
            if requests[index].done:
                # The response sender was faster; a response that was returned as well is left out, as in Triton.
                answers.append(None)
            elif requests[index].rescheduled:
                if response is not None:
                    raise _BadReturnError(
                        "Expected a None object in the execute function return list for reschduled request, found type"
                        f" '{type(response)}'."
                    )
                served[index]._again()
                answers.append(None)
            elif response is None:
                # A request that the model neither answered nor kept is then answered when its sender goes away.
                served[index].get_response_sender()
                answers.append(None)
            elif self._decoupled:
                raise _BadReturnError(
                    f"Python model '{self._name}' is using the decoupled mode and the execute function must return"
                    " None."
                )
            elif not isinstance(response, InferenceResponse):
                raise _BadReturnError(
                    "Expected an 'InferenceResponse' object in the execute function return list, found type"
                    f" '{type(response)}'."
                )
            else:
                served[index]._end()
                answers.append(self._answer(requests[index], response, True))
        return answers

    def _answer(self, request: KernelRequest, response: InferenceResponse | None, final: bool) -> KernelResponse:
        """The requested outputs in the order in which the model gave them, as Triton's backend sends them."""
        if response is None:
            return KernelResponse(final=final)
        if response._error is not None:
            return KernelResponse(error=to_kernel(response._error), final=final)
        outputs = request.outputs
        # The kernel puts these where the caller wants them before respond() or execute() return; only a coroutine's
        # response may wait.
        placed = () if self._concurrent or request.regions is None else request.regions
        wanted = self._all if outputs is None else {output.name for output in outputs} | self._states
        tensors = []
        for tensor in response._tensors:
            name = tensor._name
            if name in wanted:
                stays = name in placed
                tensors.append(tensor._to_output(stays_on_device=stays, stays=stays and not self._cached))
        if len(tensors) != len(response._tensors):
            self._warn_of_undeclared(response)
        return KernelResponse(tensors, parameters=response._parameters or _NO_PARAMETERS, final=final)

    def _warn_of_undeclared(self, response: InferenceResponse) -> None:
        """An output that was not requested is left out; one that nobody can request is probably misspelt."""
        for tensor in response._tensors:
            name = tensor._name
            if name not in self._all and name not in self._undeclared:
                self._undeclared.add(name)
                self._logger.warning(
                    "model instance '%s' returns a tensor '%s', which is left out: its configuration has the"
                    " outputs %s",
                    self._name,
                    name,
                    ", ".join(sorted(self._declared)),
                )

    def _failure(self, error: BaseException) -> InternalError:
        """What the callers are told; the log gets the traceback of what the model raised."""
        if isinstance(error, _BadReturnError):
            reason = str(error)
        else:
            self._logger.error("model instance '%s' failed to process requests", self._name, exc_info=error)
            reason = describe(error)
        return InternalError(f"Failed to process the request(s) for model '{self._name}', message: {reason}")


def _arguments(model: ModelContext, instance: InstanceContext) -> dict[str, str]:
    """What ``initialize`` is given. Source: Triton's Python backend, "initialize"."""
    return {
        "model_config": to_json(model.config),
        "model_instance_kind": instance.kind,
        "model_instance_name": instance.name,
        "model_instance_device_id": str(instance.device_id),
        "model_repository": str(model.model_path),
        "model_version": str(model.version),
        "model_name": model.name,
    }
