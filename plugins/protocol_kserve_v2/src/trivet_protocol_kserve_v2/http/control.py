"""Everything over HTTP but inference: health, metadata, configuration, statistics, model control.

Each handler takes the request and returns the response; a :class:`~trivet.errors.TrivetError` is answered by whoever
mounts it. Source: Open Inference Protocol v2, "HTTP/REST"; Triton's statistics, model configuration and model
repository extensions. As in Triton, a body that is not JSON, or whose fields are of the wrong kind, is an
:class:`~trivet.errors.InternalError`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from trivet.config.json_form import to_json
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, UnimplementedError
from trivet.http import HttpRequest, HttpResponse

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_types import NOT_BOOLEAN, NOT_OBJECT, NOT_STRING, boolean
from trivet_protocol_kserve_v2.http import documents
from trivet_protocol_kserve_v2.http.responses import JSON, json_response
from trivet_protocol_kserve_v2.http.versions import path_version

_FILE_PREFIX = "file:"


class Control:
    """Answers from the engine, on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- health

    def server_live(self, _: HttpRequest) -> HttpResponse:
        """200, or 400 as in Triton; no body."""
        return _health(self._engine.live)

    def server_ready(self, _: HttpRequest) -> HttpResponse:
        """200, or 400 as in Triton; no body."""
        return _health(self._engine.ready)

    def model_ready(self, request: HttpRequest) -> HttpResponse:
        """200 with no body. Raises for a model or version that is unknown or not ready."""
        if not self._engine.model_ready(request.params["model"], path_version(request)):
            raise InvalidArgumentError("Model version not ready")
        return HttpResponse(200)

    # --- metadata, configuration, statistics

    def server_metadata(self, _: HttpRequest) -> HttpResponse:
        """Name, version and extensions of the server."""
        return json_response(documents.server_metadata(self._engine))

    def model_metadata(self, request: HttpRequest) -> HttpResponse:
        """Inputs and outputs of a model, the latest version where the path names none, and the versions that are ready.

        Raises for a model or version that is unknown or not ready.
        """
        name, version = request.params["model"], path_version(request)
        model = self._engine.model(name, version)
        versions = [model.version] if version else self._engine.versions(name)
        return json_response(documents.model_metadata(model, versions))

    def model_config(self, request: HttpRequest) -> HttpResponse:
        """The model's ``ModelConfig`` in JSON, with what was completed. Raises as :meth:`model_metadata` does."""
        model = self._engine.model(request.params["model"], path_version(request))
        return HttpResponse(200, (to_json(model.config).encode(),), JSON)

    def statistics(self, request: HttpRequest) -> HttpResponse:
        """Of all models, of one, or of one version, as the path says. Raises for one that is unknown or not ready."""
        statistics = self._engine.statistics(request.params.get("model", ""), path_version(request))
        return json_response(documents.statistics(statistics))

    # --- model control

    async def repository_index(self, request: HttpRequest) -> HttpResponse:
        """Models in the repositories; only those that are ready with a body of ``{"ready": true}``."""
        fields = _fields(request)
        ready = fields.get("ready", False)
        if type(ready) is not bool:
            raise InternalError(NOT_BOOLEAN)
        return json_response(documents.repository_index(await self._engine.repository_index(ready)))

    async def load(self, request: HttpRequest) -> HttpResponse:
        """Load or reload a model; parameters ``config`` and ``file:PATH`` (base64) replace the repository's files.

        Answers when the model is ready. Raises what :meth:`trivet.engine.Engine.load` does.
        """
        _refuse_repository(request)
        config: str | None = None
        files: dict[str, bytes] = {}
        for key, value in _parameters(request).items():
            if type(value) is not str:
                raise InternalError(NOT_STRING)
            if key == "config":
                config = value
            elif key.startswith(_FILE_PREFIX):
                files[key.removeprefix(_FILE_PREFIX)] = _decode_file(key, value)
            else:
                raise InternalError(f"unexpected parameter '{key}' to load a model: expected 'config' or 'file:PATH'")
        await self._engine.load(request.params["model"], config=config, files=files or None)
        return HttpResponse(200, (), JSON)

    async def unload(self, request: HttpRequest) -> HttpResponse:
        """Unload a model; with parameter ``unload_dependents``, also those that only it needed.

        Raises what :meth:`trivet.engine.Engine.unload` does.
        """
        _refuse_repository(request)
        dependents = boolean(_parameters(request).get("unload_dependents", False), "unload_dependents")
        await self._engine.unload(request.params["model"], unload_dependents=dependents)
        return HttpResponse(200, (), JSON)


def _health(well: bool) -> HttpResponse:
    return HttpResponse(200 if well else 400)


def _fields(request: HttpRequest) -> Mapping[str, Any]:
    """The fields of a body that may be left out; one that is no object has none."""
    document = read_json(request.body) if request.body else {}
    return document if type(document) is dict else {}


def _parameters(request: HttpRequest) -> Mapping[str, Any]:
    parameters = _fields(request).get("parameters", {})
    if type(parameters) is not dict:
        raise InternalError(NOT_OBJECT)
    return parameters


def _refuse_repository(request: HttpRequest) -> None:
    if "repository" in request.params:
        raise UnimplementedError("'repository_name' specification is not supported")


def _decode_file(key: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:  # binascii.Error, or what is not even ASCII
        raise InvalidArgumentError(f"parameter '{key}' is not valid base64: {error}") from None
