"""Configurations of the tests: a small valid one, and a strategy for any that the schema allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st
from trivet.config import ModelConfig
from trivet.config.descriptors import fields_of, is_repeated, map_parts
from trivet.config.tree import merge
from trivet.hookspecs import BackendPlugin

PYTHON = BackendPlugin(name="python", factory="nowhere:nothing", model_filenames=("model.py",))
ONNX = BackendPlugin(
    name="onnxruntime",
    factory="nowhere:nothing",
    platforms=("onnxruntime_onnx",),
    model_filenames=("model.onnx",),
    default_cpu_instances=2,
)
TENSORFLOW = BackendPlugin(
    name="tensorflow",
    factory="nowhere:nothing",
    platforms=("tensorflow_savedmodel", "tensorflow_graphdef"),
    model_filenames=("model.savedmodel", "model.graphdef"),
)

Json = dict[str, Any]

TENSOR: Json = {"data_type": "TYPE_FP32", "dims": [4]}


def plain(**changes: Any) -> Json:
    """A model with one input and one output, as JSON would hold it, with ``changes``."""
    config = {
        "name": "m",
        "backend": "python",
        "max_batch_size": 8,
        "input": [{"name": "A", **TENSOR}],
        "output": [{"name": "B", **TENSOR}],
    }
    return config | changes


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: st.text(max_size=8),
}


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return st.deferred(lambda: _contents(fields_of(field.message_type)))
    if field.enum_type is not None:
        return st.sampled_from(sorted(field.enum_type.values_by_number))
    return _SCALARS[field.cpp_type]


def _contents(fields: Iterable[FieldDescriptor]) -> st.SearchStrategy[dict[str, Any]]:
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields:
        entry = map_parts(field)
        if entry is not None:
            optional[field.name] = st.dictionaries(_values(entry[0]), _values(entry[1]), max_size=2)
        elif is_repeated(field):
            optional[field.name] = st.lists(_values(field), max_size=2)
        else:
            optional[field.name] = _values(field)
    return st.fixed_dictionaries({}, optional=optional)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any configuration that the schema allows, sensible or not."""
    top = draw(st.lists(st.sampled_from(fields_of(ModelConfig.DESCRIPTOR)), max_size=5, unique_by=lambda f: f.name))
    config = ModelConfig()
    for mistake in merge(config, draw(_contents(top))):
        assert "keep one of them" in mistake.problem  # two members of a oneof were drawn; the first one stays
    return config
