"""Models as TensorFlow 1 and 2 write them, small enough to be read here, and a way to ask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from trivet.backend import ArrayInstance, ModelContext
from trivet.tensor import Tensor
from trivet_backend_tf.runtime import tf  # which quiets its log

v1 = tf.compat.v1

MakeContext = Callable[..., ModelContext]
MakeInstance = Callable[..., ArrayInstance]
Tensors = Mapping[str, Any]


def save(folder: Path, module: Any, arguments: Mapping[str, tuple[Any, list[int | None]]]) -> None:
    """A SavedModel of TensorFlow 2: ``module.serve`` of ``arguments`` given as ``{name: (dtype, shape)}``."""
    specs = {name: tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in arguments.items()}
    tf.saved_model.save(module, str(folder), signatures=tf.function(module.serve).get_concrete_function(**specs))


class Double(tf.Module):
    """``y = 2 x``, with the 2 in a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.two = tf.Variable(2.0)

    def serve(self, x: Any) -> Tensors:
        return {"y": self.two * x}


def save_double(folder: Path) -> None:
    save(folder, Double(), {"x": (tf.float32, [None, 4])})


def save_v1(
    folder: Path, build: Callable[[], Mapping[str, tuple[Tensors, Tensors]]], tags: tuple[str, ...] = ("serve",)
) -> None:
    """A SavedModel of TensorFlow 1. ``build`` makes the graph, and returns inputs and outputs of each signature."""
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = {
            name: v1.saved_model.predict_signature_def(dict(inputs), dict(outputs))
            for name, (inputs, outputs) in build().items()
        }
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            list(tags),
            signatures,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()


def save_serving(folder: Path, build: Callable[[], tuple[Tensors, Tensors]]) -> None:
    """The same with one signature, ``serving_default``."""
    save_v1(folder, lambda: {"serving_default": build()})


def graphdef(build: Callable[[], Any]) -> bytes:
    """A GraphDef of the operators that ``build`` makes."""
    with tf.Graph().as_default() as graph:
        build()
    return bytes(graph.as_graph_def().SerializeToString())


def parameter(key: str, value: str) -> str:
    """One of a configuration's parameters."""
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def run(instance: ArrayInstance, outputs: list[str], **inputs: Any) -> dict[str, Any]:
    """Execute one batch; inputs and results are arrays, or tensors."""
    tensors = {
        name: value if isinstance(value, Tensor) else Tensor.from_numpy(name, np.asarray(value))
        for name, value in inputs.items()
    }
    return {name: np.asarray(value) for name, value in instance.execute(tensors, outputs).items()}
