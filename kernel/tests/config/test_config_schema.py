"""The schema: the same messages as Triton's, in a pool of their own, from the committed .proto files."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from trivet.config import POOL, ModelConfig, model_config_pb2
from trivet.config.descriptors import add_file, is_repeated

ROOT = Path(__file__).parents[3]


def generator() -> ModuleType:
    path = ROOT / "tools" / "generate_protos.py"
    spec = importlib.util.spec_from_file_location("generate_protos", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_modules_are_what_the_proto_files_say() -> None:
    # Looked for and not imported: its protobuf and that of other libraries, such as onnxruntime-extensions, have static
    # objects in common, and overwrite each other's memory.
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools regenerates the modules")
    assert generator().outdated() == [], "run python tools/generate_protos.py"


def fields(descriptor: Any) -> dict[str, tuple[Any, ...]]:
    """Every field of a message and of those inside it: number, type, whether it repeats, its oneof."""
    found = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof.name if field.containing_oneof else ""
        found[field.full_name] = (field.number, field.type, is_repeated(field), oneof)
    for nested in descriptor.nested_types:
        found |= fields(nested)
    return found


def test_triton_client_and_we_have_the_same_messages_in_one_process() -> None:
    theirs = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    assert theirs.ModelConfig.DESCRIPTOR.full_name == ModelConfig.DESCRIPTOR.full_name
    ours: dict[str, tuple[Any, ...]] = {}
    for message in model_config_pb2.DESCRIPTOR.message_types_by_name.values():
        ours |= fields(message)
    for message in theirs.DESCRIPTOR.message_types_by_name.values():
        for name, facts in fields(message).items():
            assert ours[name] == facts, name
    for name, enum in theirs.DESCRIPTOR.enum_types_by_name.items():
        mine = model_config_pb2.DESCRIPTOR.enum_types_by_name[name]
        assert {v.name: v.number for v in mine.values} == {v.name: v.number for v in enum.values}


def test_messages_travel_between_our_pool_and_the_client() -> None:
    theirs = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = ModelConfig(name="m", input=[{"name": "A", "data_type": "TYPE_FP32", "dims": [-1]}])
    assert theirs.ModelConfig.FromString(config.SerializeToString()).input[0].dims == [-1]


def test_the_client_may_be_imported_after_us() -> None:
    pytest.importorskip("tritonclient.grpc")
    program = "import trivet.config, tritonclient.grpc.model_config_pb2; print(trivet.config.ModelConfig(name='x'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, 'name: "x"\n\n'), done.stderr


def test_the_default_pool_is_left_alone() -> None:
    program = (
        "import trivet.config\n"
        "from google.protobuf import descriptor_pool\n"
        "try: descriptor_pool.Default().FindMessageTypeByName('inference.ModelConfig')\n"
        "except KeyError: print('free')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "free\n"
    assert descriptor_pool.Default() is not POOL


def test_a_file_may_be_added_twice_and_another_of_its_name_may_not() -> None:
    serialized = model_config_pb2.DESCRIPTOR.serialized_pb
    assert add_file(serialized).name == "model_config.proto"
    with pytest.raises(TypeError):
        add_file(serialized + b"\x12\x01x")


def test_importing_the_configuration_imports_no_yaml_and_no_numpy() -> None:
    program = "import sys, trivet.config; print(sorted({'yaml', 'numpy', 'grpc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
