"""SavedModels: which graph and signature of one, and how it comes into a session.

The session is filled as TensorFlow's own loader for C++ does, and so TensorFlow Serving and Triton: import the graph,
run its restore operator and then its initializer. That serves models of TensorFlow 1 and 2, Keras's included, and needs
none of the Python classes that a model was made of, as ``tf.saved_model.load`` does.
Source: ``tensorflow/cc/saved_model/loader.cc``, ``bundle_v2.cc`` and ``loader_util.cc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError

from trivet_backend_tf.files import SAVED_MODEL_FILES, read_message
from trivet_backend_tf.runtime import AssetFileDef, SavedModelMessage
from trivet_backend_tf.settings import Settings
from trivet_backend_tf.signature import Signature

_DEFAULT_SIGNATURE = "serving_default"
_INIT_OP = "__saved_model_init_op"
# Signatures that are no way to call the model.
_INTERNAL_SIGNATURES = (_INIT_OP, "__saved_model_train_op")
# Collections that name the initializer, where no signature does: of TensorFlow 1.
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_ASSETS_COLLECTION = "saved_model_assets"
_VARIABLES = frozenset(("VarHandleOp", "Variable", "VariableV2"))


@dataclass(frozen=True, slots=True)
class SavedModel:
    """One graph of a SavedModel, with the signature that is served."""

    folder: Path
    meta_graph: Any
    """A ``MetaGraphDef``."""
    signature: Signature

    @property
    def written_by(self) -> str:
        """The version of TensorFlow that wrote it; "" where it does not say."""
        return str(self.meta_graph.meta_info_def.tensorflow_version)


def read(folder: Path, settings: Settings, context: ModelContext) -> SavedModel:
    """Read what a SavedModel says of itself; its weights are not touched.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a file that is no SavedModel, and where it has no graph of
    these tags or no such signature, and :class:`~trivet.errors.UnavailableError` where there is no file.
    """
    meta_graph = _graph_with(_parse(folder, context), settings.tags, context)
    name = _signature_name(meta_graph, settings.signature, context)
    return SavedModel(folder, meta_graph, Signature.of(meta_graph.signature_def[name], meta_graph.graph_def))


def restore(session: Any, model: SavedModel) -> None:
    """Fill a session, which has the model's graph, with its variables and tables.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the variables are missing, and what TensorFlow raises.
    """
    graph = model.meta_graph
    saver = graph.saver_def
    assets = {name: str(model.folder / "assets" / filename) for name, filename in _assets(graph)}
    prefix = model.folder / "variables" / "variables"
    if saver.restore_op_name and prefix.with_suffix(".index").is_file():
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(prefix), **assets})
    elif any(node.op in _VARIABLES for node in graph.graph_def.node):
        raise InvalidArgumentError(
            f"the variables of the SavedModel are missing: there is no '{prefix.with_suffix('.index')}'"
        )
    initializer = _initializer(graph)
    if initializer:
        session.run(initializer, assets)


def _parse(folder: Path, context: ModelContext) -> Any:
    binary, text = (folder / name for name in SAVED_MODEL_FILES)
    message = SavedModelMessage()
    try:
        if binary.is_file():
            message.ParseFromString(read_message(binary, context.name))
        elif text.is_file():
            text_format.Parse(read_message(text, context.name).decode(), message)
        else:
            raise UnavailableError(
                f"unable to find '{binary}' for model '{context.name}': the folder holds no SavedModel"
            )
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise _damaged(folder, context, f": {error}") from error
    if not message.meta_graphs:
        raise _damaged(folder, context)
    return message


def _damaged(folder: Path, context: ModelContext, why: str = "") -> InvalidArgumentError:
    return InvalidArgumentError(
        f"failed to load model '{context.name}': the SavedModel in '{folder}' cannot be read; it is damaged or"
        f" incomplete (a Git LFS pointer?){why}"
    )


def _graph_with(message: Any, tags: frozenset[str], context: ModelContext) -> Any:
    for meta_graph in message.meta_graphs:
        if frozenset(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    there = " and ".join(f"'{','.join(graph.meta_info_def.tags)}'" for graph in message.meta_graphs)
    raise InvalidArgumentError(
        f"unable to load model '{context.name}', expected '{','.join(sorted(tags))}' tag; the SavedModel has graphs"
        f" with {there}: set the parameter TF_GRAPH_TAG"
    )


def _signature_name(meta_graph: Any, wanted: str, context: ModelContext) -> str:
    """The signature that is asked for. Where none is, ``serving_default``, or as in Triton one of another name.

    Triton does so too where one is asked for that is not there, and then serves what nobody meant.
    """
    names = sorted(name for name in meta_graph.signature_def if name not in _INTERNAL_SIGNATURES)
    name = wanted or _DEFAULT_SIGNATURE
    if name in names:
        return name
    if wanted or not names:
        raise InvalidArgumentError(
            f"unable to load model '{context.name}', expected '{name}' signature; the SavedModel has"
            f" {', '.join(names) or 'none'}" + (": set the parameter TF_SIGNATURE_DEF" if names else "")
        )
    context.logger.warning(
        "model '%s': unable to find default serving signature '%s', using signature '%s' of %s; the parameter"
        " TF_SIGNATURE_DEF says which",
        context.name,
        name,
        names[0],
        ", ".join(names),
    )
    return str(names[0])


def _assets(meta_graph: Any) -> Iterator[tuple[str, str]]:
    """Files that tables are read from: the tensor that is fed with the path, and the name in ``assets/``."""
    definitions = list(meta_graph.asset_file_def)
    if not definitions:
        # As TensorFlow 1 stored them.
        for packed in meta_graph.collection_def[_ASSETS_COLLECTION].any_list.value:
            definition = AssetFileDef()
            packed.Unpack(definition)
            definitions.append(definition)
    for definition in definitions:
        yield definition.tensor_info.name, definition.filename


def _initializer(meta_graph: Any) -> str:
    """The name of the operator or tensor that initializes the graph; "" where there is none."""
    if _INIT_OP in meta_graph.signature_def:
        return str(meta_graph.signature_def[_INIT_OP].outputs[_INIT_OP].name)
    for collection in _INIT_COLLECTIONS:
        names = meta_graph.collection_def[collection].node_list.value
        if names:
            return str(names[0])
    return ""
