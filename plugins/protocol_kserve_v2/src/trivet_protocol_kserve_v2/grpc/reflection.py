"""Server reflection: how tools such as grpcurl learn what the server offers.

Source: gRPC's reflection protocol. Its two versions are the same on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from trivet.config import POOL

from trivet_protocol_kserve_v2.proto.reflection_pb2 import (
    DESCRIPTOR,
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

REFLECTION: ServiceDescriptor = DESCRIPTOR.services_by_name["ServerReflection"]
PATHS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))

_NOT_FOUND = 5
_INVALID_ARGUMENT = 3


class Reflection:
    """Answers questions about the services given, from Trivet's own descriptor pool."""

    def __init__(self, services: Sequence[ServiceDescriptor]) -> None:
        self._services = services

    def answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """One response per request; what does not exist is an error inside the response."""
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                services = [ServiceResponse(name=service.full_name) for service in self._services]
                response.list_services_response.CopyFrom(ListServiceResponse(service=services))
            case "file_by_filename":
                self._describe(response, request.file_by_filename, by_name=True)
            case "file_containing_symbol":
                self._describe(response, request.file_containing_symbol, by_name=False)
            case "all_extension_numbers_of_type":
                # The messages are proto3: there are no extensions.
                self._number_extensions(response, request.all_extension_numbers_of_type)
            case "file_containing_extension":
                extension = request.file_containing_extension
                _fail(response, f"{extension.containing_type} has no extension {extension.extension_number}")
            case _:
                error = ErrorResponse(error_code=_INVALID_ARGUMENT, error_message="the request asks nothing")
                response.error_response.CopyFrom(error)
        return response

    def _describe(self, response: ServerReflectionResponse, name: str, *, by_name: bool) -> None:
        try:
            file = POOL.FindFileByName(name) if by_name else POOL.FindFileContainingSymbol(name)
        except KeyError:
            _fail(response, f"{name} not found")
            return
        files = [described.serialized_pb for described in _with_imports(file, set())]
        response.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=files))

    def _number_extensions(self, response: ServerReflectionResponse, name: str) -> None:
        try:
            POOL.FindMessageTypeByName(name)
        except KeyError:
            _fail(response, f"{name} not found")
            return
        response.all_extension_numbers_response.CopyFrom(ExtensionNumberResponse(base_type_name=name))


def _fail(response: ServerReflectionResponse, message: str) -> None:
    response.error_response.CopyFrom(ErrorResponse(error_code=_NOT_FOUND, error_message=message))


def _with_imports(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if file.name in seen:
        return
    seen.add(file.name)
    yield file
    for dependency in file.dependencies:
        yield from _with_imports(dependency, seen)
