"""The pool that holds Trivet's protobuf messages, apart from protobuf's default one.

``tritonclient`` registers messages of the same full names (``inference.ModelConfig``) in the default pool, and one pool
holds a name once. With a pool of our own, client and server live in one process. Modules that
``tools/generate_protos.py`` writes build themselves with the functions here; a plugin's files join the same pool, so
that its messages can contain the kernel's.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

POOL = descriptor_pool.DescriptorPool()
"""All of Trivet's messages. Where protobuf or gRPC takes a pool (``text_format``, server reflection), pass this one."""


def add_file(serialized: bytes) -> FileDescriptor:
    """Add a serialized ``FileDescriptorProto`` to :data:`POOL`; the files that it imports must be there.

    Adding the same file again is harmless. Raises :class:`TypeError` for another file of that name, or another message
    of a name that the pool holds.
    """
    return POOL.AddSerializedFile(serialized)


def message_class(full_name: str, module: str) -> type[Message]:
    """The class of a message of :data:`POOL`, shown as belonging to ``module``."""
    found = message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
    found.__module__ = module
    return found


def enum_type(full_name: str) -> EnumTypeWrapper:
    """Names and numbers of an enum of :data:`POOL`."""
    return EnumTypeWrapper(POOL.FindEnumTypeByName(full_name))


def fields_of(descriptor: Any) -> list[FieldDescriptor]:
    """The fields of a message's descriptor, in the order of the .proto file."""
    return list(descriptor.fields)


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field holds many values; a map does. Protobuf before 6.31 has no ``field.is_repeated``."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(getattr(field, "label") == FieldDescriptor.LABEL_REPEATED)  # noqa: B009  (gone from the types)


def map_parts(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """What the keys and the values of a map are; ``None`` for a field that is no map."""
    entry: Any = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]
