"""Messages of health.proto. Written by tools/generate_protos.py; do not edit."""

# fmt: off
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Never

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal.containers import (
    MessageMap, RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer, ScalarMap,
)
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

DESCRIPTOR: FileDescriptor

class HealthCheckRequest(Message):
    service: str
    def __init__(self, *, service: str | None = ...) -> None: ...
    def HasField(self, field_name: Never) -> bool: ...
    def ClearField(self, field_name: Literal['service']) -> None: ...

class HealthCheckResponse(Message):
    ServingStatus: ClassVar[EnumTypeWrapper]
    UNKNOWN: ClassVar[int]
    SERVING: ClassVar[int]
    NOT_SERVING: ClassVar[int]
    SERVICE_UNKNOWN: ClassVar[int]
    status: int
    def __init__(self, *, status: int | None = ...) -> None: ...
    def HasField(self, field_name: Never) -> bool: ...
    def ClearField(self, field_name: Literal['status']) -> None: ...
