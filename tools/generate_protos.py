"""Turn every .proto file of the repository into a Python module and its types.

    python tools/generate_protos.py            write FILE_pb2.py and FILE_pb2.pyi beside each FILE.proto
    python tools/generate_protos.py --check    write nothing; exit 1 and name what differs from a fresh generation

A .proto file is found wherever it stands under ``kernel/src/`` or ``plugins/*/src/``; nothing has to be registered.
It imports another by its bare file name (``import "model_config.proto";``), so file names are unique in the repository.
The written module adds the file to ``trivet.config.POOL`` and not to protobuf's default pool (the reason stands in
``trivet.config.descriptors``), and offers

* ``DESCRIPTOR``, the file; a service stands in ``DESCRIPTOR.services_by_name``, its methods with their message types;
* a class per top-level message, with nested ones inside;
* per top-level enum its wrapper (``DataType.Name(11)``) and each enumerator as an integer.

Needs grpcio-tools, whose protoc only parses: what is written does not depend on its version.
"""

from __future__ import annotations

import argparse
import keyword
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

ROOT = Path(__file__).resolve().parent.parent
HEADER = '"""Messages of {proto}. Written by tools/generate_protos.py; do not edit."""\n\n# fmt: off\n'

_Field = FieldDescriptorProto
_SCALARS = {
    _Field.TYPE_DOUBLE: "float",
    _Field.TYPE_FLOAT: "float",
    _Field.TYPE_BOOL: "bool",
    _Field.TYPE_STRING: "str",
    _Field.TYPE_BYTES: "bytes",
}
"""Python types of scalar fields; all others are ``int``."""


def find_protos(root: Path) -> dict[str, Path]:
    """Every .proto file by its bare name."""
    found: dict[str, Path] = {}
    for path in sorted([*root.glob("kernel/src/**/*.proto"), *root.glob("plugins/*/src/**/*.proto")]):
        if path.name in found:
            raise SystemExit(f"{path} and {found[path.name]} have one name; file names must be unique")
        found[path.name] = path
    return found


def module_name(proto: Path) -> str:
    """The dotted name of the module generated for a .proto file: its path below ``src/``."""
    parts = proto.parts[len(proto.parts) - proto.parts[::-1].index("src") :]
    return ".".join((*parts[:-1], f"{proto.stem}_pb2"))


def parse(protos: dict[str, Path]) -> list[FileDescriptorProto]:
    """The descriptors of all files."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors.bin"
        includes = [f"-I{path}" for path in sorted({path.parent for path in protos.values()})]
        # A process of its own: protoc crashes in one that has loaded TensorFlow, which has another protobuf.
        command = [sys.executable, "-m", "grpc_tools.protoc", *includes, f"--descriptor_set_out={output}", *protos]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("protoc failed; its messages are above")
        files = list(FileDescriptorSet.FromString(output.read_bytes()).file)
    for file in files:
        for message in file.message_type:
            _drop_json_names(message)
    return files


def _drop_json_names(message: DescriptorProto) -> None:
    """The pool computes the same names again; written out they are a fourth of a descriptor."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _drop_json_names(nested)


class Names:
    """Where each message and enum of the files lives in Python."""

    def __init__(self, files: Sequence[FileDescriptorProto], protos: dict[str, Path]) -> None:
        self._module: dict[str, str] = {}
        self._path: dict[str, str] = {}
        self.map_entries: dict[str, DescriptorProto] = {}
        for file in files:
            module = module_name(protos[file.name])
            for message in file.message_type:
                self._add(message, f".{file.package}", "", module)

    def _add(self, message: DescriptorProto, scope: str, path: str, module: str) -> None:
        full_name = f"{scope}.{message.name}"
        self._module[full_name], self._path[full_name] = module, path + message.name
        if message.options.map_entry:
            self.map_entries[full_name] = message
        for nested in message.nested_type:
            self._add(nested, full_name, f"{path}{message.name}.", module)

    def reference(self, full_name: str, module: str) -> str:
        """How ``module`` writes the class of a message."""
        owner = self._module[full_name]
        return self._path[full_name] if owner == module else f"{owner.rpartition('.')[2]}.{self._path[full_name]}"


def module_source(file: FileDescriptorProto, protos: dict[str, Path]) -> str:
    """The Python module that adds the file to the pool."""
    lines = []
    for dependency in file.dependency:
        package, _, name = module_name(protos[dependency]).rpartition(".")
        lines.append(f"from {package} import {name}  # noqa: F401  (must be in the pool before this file)")
    lines += ["from trivet.config import descriptors", "", "DESCRIPTOR = descriptors.add_file("]
    serialized = file.SerializeToString(deterministic=True)
    lines += [f"    {serialized[start : start + 64]!r}" for start in range(0, len(serialized), 64)]
    lines += [")", ""]
    for enum in file.enum_type:
        lines.append(f'{enum.name} = descriptors.enum_type("{file.package}.{enum.name}")')
        lines += [f"{value.name} = {value.number}" for value in enum.value]
    for message in file.message_type:
        lines.append(f'{message.name} = descriptors.message_class("{file.package}.{message.name}", __name__)')
    return HEADER.format(proto=file.name) + "\n".join(lines) + "\n"


def stub_source(file: FileDescriptorProto, module: str, protos: dict[str, Path], names: Names) -> str:
    """The types of the module."""
    lines = [
        "from collections.abc import Iterable, Mapping",
        "from typing import Any, ClassVar, Literal, Never",
        "",
        "from google.protobuf.descriptor import FileDescriptor",
        "from google.protobuf.internal.containers import (",
        "    MessageMap, RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer, ScalarMap,",
        ")",
        "from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper",
        "from google.protobuf.message import Message",
    ]
    for dependency in file.dependency:
        package, _, name = module_name(protos[dependency]).rpartition(".")
        lines.append(f"from {package} import {name}")
    lines += ["", "DESCRIPTOR: FileDescriptor"]
    for enum in file.enum_type:
        lines += _enum_stub(enum, "")
    for message in file.message_type:
        lines += ["", *_message_stub(message, module, names)]
    return HEADER.format(proto=file.name) + "\n".join(lines) + "\n"


def _enum_stub(enum: EnumDescriptorProto, indent: str) -> Iterator[str]:
    kind = ("ClassVar[EnumTypeWrapper]", "ClassVar[int]") if indent else ("EnumTypeWrapper", "int")
    yield f"{indent}{enum.name}: {kind[0]}"
    for value in enum.value:
        yield f"{indent}{value.name}: {kind[1]}"


def _message_stub(message: DescriptorProto, module: str, names: Names, indent: str = "") -> Iterator[str]:
    yield f"{indent}class {message.name}(Message):"
    inner = indent + "    "
    for enum in message.enum_type:
        yield from _enum_stub(enum, inner)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _message_stub(nested, module, names, inner)
    parameters = []
    for field in message.field:
        if keyword.iskeyword(field.name):  # read with getattr, set through a mapping
            continue
        stored, accepted = _field_types(field, module, names)
        parameters.append(f"{field.name}: {accepted} | None = ...")
        if stored == accepted:
            yield f"{inner}{field.name}: {stored}"
        else:  # messages and containers are changed in place, never assigned
            yield f"{inner}@property"
            yield f"{inner}def {field.name}(self) -> {stored}: ..."
    separator = ", *, " if parameters else ""
    yield f"{inner}def __init__(self{separator}{', '.join(parameters)}) -> None: ..."
    present = [field.name for field in message.field if field.HasField("oneof_index") or _is_single_message(field)]
    yield f"{inner}def HasField(self, field_name: {_literal(present)}) -> bool: ..."
    yield f"{inner}def ClearField(self, field_name: {_literal([field.name for field in message.field])}) -> None: ..."
    if message.oneof_decl:
        members = [f.name for f in message.field if f.HasField("oneof_index")]
        groups = _literal([oneof.name for oneof in message.oneof_decl])
        yield f"{inner}def WhichOneof(self, oneof_group: {groups}) -> {_literal(members)} | None: ..."


def _is_single_message(field: FieldDescriptorProto) -> bool:
    return field.type == _Field.TYPE_MESSAGE and field.label != _Field.LABEL_REPEATED


def _literal(names: Sequence[str]) -> str:
    return f"Literal[{', '.join(repr(name) for name in names)}]" if names else "Never"


def _field_types(field: FieldDescriptorProto, module: str, names: Names) -> tuple[str, str]:
    """The type that reading a field gives, and the one that the constructor takes for it."""
    entry = names.map_entries.get(field.type_name)
    if entry is not None:
        key, value = (_field_types(part, module, names)[0] for part in entry.field)
        container = "MessageMap" if entry.field[1].type == _Field.TYPE_MESSAGE else "ScalarMap"
        return f"{container}[{key}, {value}]", f"Mapping[{key}, {value}]"
    is_message = field.type == _Field.TYPE_MESSAGE
    single = names.reference(field.type_name, module) if is_message else _SCALARS.get(field.type, "int")
    accepted = f"{single} | Mapping[str, Any]" if is_message else single
    if field.label != _Field.LABEL_REPEATED:
        return single, accepted
    container = "RepeatedCompositeFieldContainer" if is_message else "RepeatedScalarFieldContainer"
    return f"{container}[{single}]", f"Iterable[{accepted}]"


def generate(root: Path = ROOT) -> dict[Path, str]:
    """All files to be written, with their text."""
    protos = find_protos(root)
    files = parse(protos)
    names = Names(files, protos)
    result: dict[Path, str] = {}
    for file in files:
        path = protos[file.name]
        module = module_name(path)
        result[path.with_name(f"{path.stem}_pb2.py")] = module_source(file, protos)
        result[path.with_name(f"{path.stem}_pb2.pyi")] = stub_source(file, module, protos, names)
    return result


def outdated(root: Path = ROOT) -> list[Path]:
    """The files whose committed text is not what would be written."""
    return [path for path, text in generate(root).items() if not path.exists() or path.read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate Python modules from .proto files.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where a file is out of date")
    options: Any = parser.parse_args(arguments)
    if options.check:
        stale = outdated()
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date; run python tools/generate_protos.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in generate().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
