"""Everything of the service but inference: health, metadata, configuration, statistics, model control.

Methods are named for the RPCs, in Python's spelling; each takes the request message and returns the response message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, UnimplementedError
from trivet.statistics import Duration, ModelStatistics

from trivet_protocol_kserve_v2.codec import log_settings
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.grpc.restricted import Metadata, Restriction
from trivet_protocol_kserve_v2.grpc.shared_memory import SharedMemoryMethods
from trivet_protocol_kserve_v2.grpc.trace_settings import TraceMethods
from trivet_protocol_kserve_v2.grpc.versions import usual_version
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb
from trivet_protocol_kserve_v2.proto import health_pb2

if TYPE_CHECKING:
    from trivet.config.spec import TensorSpec

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

Handler = Callable[[Any], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class ControlMethod:
    """One unary method: where it is mounted, and what answers it."""

    path: str
    request: type[Message]
    handle: Handler
    restriction: Restriction | None

    async def __call__(self, payload: bytes, metadata: Metadata) -> bytes:
        """The response message's bytes. Raises :class:`~trivet.errors.TrivetError` and nothing else."""
        try:
            if self.restriction is not None:
                self.restriction.check(metadata)
            return (await self.handle(self.request.FromString(payload))).SerializeToString()
        except TrivetError:
            raise
        except DecodeError:
            raise InternalError("Unable to parse request") from None
        except Exception as error:
            logger.exception("%s failed", self.path)
            raise InternalError(f"Unexpected {type(error).__name__}: {error}") from error


class Control:
    """Answers the unary methods from the engine, on the event loop."""

    def __init__(self, engine: Engine, restrictions: Mapping[str, Restriction], memory: SharedMemory) -> None:
        self._engine = engine
        self._memory = SharedMemoryMethods(memory)
        self._restrictions = restrictions

    def methods(self) -> list[ControlMethod]:
        """All unary methods of the service but ``ModelInfer``, and the health check."""
        service: tuple[tuple[str, str, Handler], ...] = (
            ("ServerLive", "health", self.server_live),
            ("ServerReady", "health", self.server_ready),
            ("ModelReady", "health", self.model_ready),
            ("ServerMetadata", "metadata", self.server_metadata),
            ("ModelMetadata", "metadata", self.model_metadata),
            ("ModelConfig", "model-config", self.model_config),
            ("ModelStatistics", "statistics", self.model_statistics),
            ("RepositoryIndex", "model-repository", self.repository_index),
            ("RepositoryModelLoad", "model-repository", self.repository_model_load),
            ("RepositoryModelUnload", "model-repository", self.repository_model_unload),
            ("SystemSharedMemoryStatus", "shared-memory", self._memory.system_status),
            ("SystemSharedMemoryRegister", "shared-memory", self._memory.system_register),
            ("SystemSharedMemoryUnregister", "shared-memory", self._memory.system_unregister),
            ("CudaSharedMemoryStatus", "shared-memory", self._memory.cuda_status),
            ("CudaSharedMemoryRegister", "shared-memory", self._memory.cuda_register),
            ("CudaSharedMemoryUnregister", "shared-memory", self._memory.cuda_unregister),
            ("TraceSetting", "trace", TraceMethods(self._engine).trace_setting),
            ("LogSettings", "logging", self.log_settings),
        )
        methods = [
            ControlMethod(
                f"/{SERVICE.full_name}/{name}", getattr(pb, f"{name}Request"), handle, self._restrictions.get(protocol)
            )
            for name, protocol, handle in service
        ]
        methods.append(
            ControlMethod(
                f"/{HEALTH.full_name}/Check",
                health_pb2.HealthCheckRequest,
                self.health_check,
                self._restrictions.get("health"),
            )
        )
        return methods

    async def health_check(self, _: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """GRPC's own health protocol: readiness of the server, whatever service is named, as in Triton."""
        statuses = health_pb2.HealthCheckResponse
        return statuses(status=statuses.SERVING if self._engine.ready else statuses.NOT_SERVING)

    async def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=self._engine.live)

    async def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._engine.ready)

    async def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._engine.model_ready(request.name, usual_version(request.version)))

    async def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        engine = self._engine
        return pb.ServerMetadataResponse(name=engine.server_name, version=engine.version, extensions=engine.extensions)

    async def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        model = self._engine.model(request.name, usual_version(request.version))
        spec = model.spec
        versions = [model.version] if request.version else self._engine.versions(request.name)

        def describe(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
            shape = (-1, *tensor.dims) if spec.max_batch_size > 0 and not tensor.is_shape_tensor else tensor.dims
            return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype.name, shape=shape)

        return pb.ModelMetadataResponse(
            name=model.name,
            versions=map(str, versions),
            platform=model.platform,
            inputs=map(describe, spec.inputs.values()),
            outputs=map(describe, spec.outputs.values()),
        )

    async def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._engine.model(request.name, usual_version(request.version)).config)

    async def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        statistics = self._engine.statistics(request.name, usual_version(request.version))
        return pb.ModelStatisticsResponse(model_stats=map(_statistics, statistics))

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        _refuse_repository(request.repository_name)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
                )
                for entry in await self._engine.repository_index(request.ready)
            ]
        )

    async def repository_model_load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        _refuse_repository(request.repository_name)
        config: str | None = None
        files: dict[str, bytes] = {}
        for key, value in request.parameters.items():
            choice = value.WhichOneof("parameter_choice")
            if key == "config":
                _expect(choice == "string_param", f"load parameter '{key}'", "string_param")
                config = value.string_param
            elif key.startswith("file:"):
                _expect(choice == "bytes_param", f"load parameter '{key}'", "bytes_param")
                files[key.removeprefix("file:")] = value.bytes_param
            else:
                raise InvalidArgumentError(f"unrecognized load parameter '{key}'.")
        # A caller that gives up waiting does not stop the load half-way.
        await asyncio.shield(self._engine.load(request.model_name, config=config, files=files or None))
        return pb.RepositoryModelLoadResponse()

    async def log_settings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        known = log_settings.current()
        log_settings.change(
            {name: _log_setting(name, request.settings[name]) for name in known if name in request.settings}
        )
        response = pb.LogSettingsResponse()
        for name, value in log_settings.current().items():
            setting = response.settings[name]
            if isinstance(value, bool):
                setting.bool_param = value
            elif isinstance(value, int):
                setting.uint32_param = value
            else:
                setting.string_param = value
        return response

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        _refuse_repository(request.repository_name)
        dependents = False
        if "unload_dependents" in request.parameters:
            value = request.parameters["unload_dependents"]
            _expect(value.WhichOneof("parameter_choice") == "bool_param", "'unload_dependents' parameter", "bool_param")
            dependents = value.bool_param
        await asyncio.shield(self._engine.unload(request.model_name, unload_dependents=dependents))
        return pb.RepositoryModelUnloadResponse()


_LOG_TYPES = {"bool_param": "boolean", "uint32_param": "int32", "string_param": "string"}


def _log_setting(name: str, value: pb.LogSettingsRequest.SettingValue) -> log_settings.Setting:
    expected = "uint32_param" if name == "log_verbose_level" else "string_param"
    if name in log_settings.BOOLEANS:
        expected = "bool_param"
    if name != "log_file" and value.WhichOneof("parameter_choice") != expected:
        raise InvalidArgumentError(f"expect {_LOG_TYPES[expected]} for '{name}'")
    found: log_settings.Setting = getattr(value, expected)
    if name == "log_format" and found not in log_settings.FORMATS:
        raise InvalidArgumentError(f"invalid argument for log_format, got: {found}")
    return found


def _refuse_repository(name: str) -> None:
    if name:
        raise UnimplementedError("'repository_name' specification is not supported")


def _expect(condition: bool, what: str, expected: str) -> None:
    if not condition:
        raise InvalidArgumentError(f"invalid value type for {what}, expected {expected}.")


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _statistics(statistics: ModelStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=statistics.name,
        version=statistics.version,
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_input=_duration(statistics.compute_input),
            compute_infer=_duration(statistics.compute_infer),
            compute_output=_duration(statistics.compute_output),
            cache_hit=_duration(statistics.cache_hit),
            cache_miss=_duration(statistics.cache_miss),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(batch.compute_input),
                compute_infer=_duration(batch.compute_infer),
                compute_output=_duration(batch.compute_output),
            )
            for size, batch in sorted(statistics.batches.items())
        ],
        response_stats={
            key: pb.InferResponseStatistics(
                compute_infer=_duration(response.compute_infer),
                compute_output=_duration(response.compute_output),
                success=_duration(response.success),
                fail=_duration(response.fail),
                empty_response=_duration(response.empty_response),
                cancel=_duration(response.cancel),
            )
            for key, response in statistics.responses.items()
        },
    )
