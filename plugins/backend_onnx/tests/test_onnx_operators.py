"""Operators that ONNX Runtime does not have: the library of onnxruntime-extensions, under several names."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError
from trivet.tensor import Tensor
from trivet_backend_onnx.settings import EXTENSIONS, SessionSettings

Instance = Callable[..., ArrayInstance]

installed = pytest.mark.skipif(importlib.util.find_spec(EXTENSIONS) is None, reason="needs onnxruntime-extensions")


@pytest.fixture(scope="module")
def tokenizer() -> onnx.ModelProto:
    """Text into WordPiece ids, by an operator of onnxruntime-extensions."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s"]
    outputs = ["input_ids", "token_type_ids", "attention_mask"]
    node = helper.make_node(
        "BertTokenizer", ["text"], outputs, domain="ai.onnx.contrib", vocab_file="\n".join(words), do_lower_case=1
    )
    text = helper.make_tensor_value_info("text", TensorProto.STRING, [None])
    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in outputs]
    graph = helper.make_graph([node], "graph", [text], ids)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.contrib", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def operators(*names: str) -> str:
    # The model takes one text, and gives as many ids as it has tokens: no batch.
    tensors = """
        input { name: "text" data_type: TYPE_STRING dims: [ -1 ] }
        output { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }
    """
    return tensors + "".join(f'model_operations {{ op_library_filename: "{name}" }} ' for name in names)


def ids(instance: ArrayInstance, text: bytes) -> list[int]:
    results: Any = instance.execute({"text": Tensor.from_numpy("text", np.array([text], object))}, ["input_ids"])
    return list(results["input_ids"])


@installed
def test_the_packages_name_stands_for_its_library(tokenizer: onnx.ModelProto, context: Any, instance: Instance) -> None:
    made = instance(context(tokenizer, operators(EXTENSIONS)))
    assert ids(made, b"Hello worlds, nope") == [2, 5, 6, 7, 1, 1, 3]


@installed
def test_a_library_in_the_models_folder_goes_by_its_name(
    tokenizer: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    made_context = context(tokenizer, operators("libtokenizer.so"))
    (library,) = SessionSettings.read(context(None, operators(EXTENSIONS), name="other")).op_libraries
    (made_context.model_path / "libtokenizer.so").symlink_to(library)
    assert ids(instance(made_context), b"hello") == [2, 5, 3]


@installed
def test_finding_the_library_does_not_import_the_package(tokenizer: onnx.ModelProto, tmp_path: Path) -> None:
    """Its Python half imports torch and transformers where they are, and changes how protobuf works."""
    code = f"""
import logging, pathlib, sys
from google.protobuf import text_format
from trivet.backend import ModelContext
from trivet.config import ModelConfig
from trivet_backend_onnx.settings import SessionSettings
config = text_format.Parse({operators(EXTENSIONS)!r}, ModelConfig(name="m"))
folder = pathlib.Path({str(tmp_path)!r})
settings = SessionSettings.read(ModelContext("m", 1, folder, folder, config, logging.getLogger()))
print(pathlib.Path(settings.op_libraries[0]).is_file(), {EXTENSIONS!r} in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "False"]


def test_a_package_that_is_not_installed(
    tokenizer: onnx.ModelProto, context: Any, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgumentError, match=r"not installed; run: pip install 'trivet-backend-onnx\[extensions"):
        instance(context(tokenizer, operators(EXTENSIONS)))


def test_an_operator_of_the_package_says_where_it_comes_from(
    tokenizer: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    with pytest.raises(InvalidArgumentError, match=r'BertTokenizer.*op_library_filename: "onnxruntime_extensions" \}'):
        instance(context(tokenizer, operators()))


@installed
def test_a_library_whose_operators_are_registered_twice_is_no_trouble_for_others(
    tokenizer: onnx.ModelProto, add_sub: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    """Each session registers the library for itself."""
    first = instance(context(tokenizer, operators(EXTENSIONS), name="first"))
    second = instance(context(tokenizer, operators(EXTENSIONS), name="second"))
    instance(context(add_sub, name="third"))
    assert ids(first, b"hello") == ids(second, b"hello")
