"""From a file to a network in memory."""

from __future__ import annotations

from typing import Any

from trivet.backend import InstanceContext, ModelContext
from trivet.errors import InvalidArgumentError, TrivetError

from trivet_backend_tf import graphdef, saved_model
from trivet_backend_tf.devices import check_device, place, session_config
from trivet_backend_tf.files import Format, ModelFile
from trivet_backend_tf.network import Network
from trivet_backend_tf.runtime import dismantle, load_failure, tf
from trivet_backend_tf.settings import Settings
from trivet_backend_tf.signature import Signature


def load_network(context: ModelContext, settings: Settings, file: ModelFile, instance: InstanceContext) -> Network:
    """Load a model for an instance, on its thread.

    Raises :class:`~trivet.errors.InvalidArgumentError` for what TensorFlow refuses,
    :class:`~trivet.errors.UnavailableError` where a GPU is asked for and not there, and
    :class:`~trivet.errors.ResourceExhaustedError` where there is not enough memory.
    """
    check_device(settings, instance, context)
    if file.format is Format.SAVED_MODEL:
        saved = saved_model.read(file.path, settings, context)
        graph_def, written_by = saved.meta_graph.graph_def, saved.written_by
        # Of the operators as the writer knew them: what this version does not know and has a default value is left out.
        known_ops = saved.meta_graph.meta_info_def.stripped_op_list
    else:
        saved = None
        graph_def, written_by, known_ops = graphdef.read(file.path, context), "", None
    graph = tf.Graph()
    session = None
    try:
        place(graph_def, instance)
        with graph.as_default():
            tf.compat.v1.import_graph_def(graph_def, name="", producer_op_list=known_ops)
        session = tf.compat.v1.Session(graph=graph, config=session_config(settings, instance))
        signature = _fill(session, saved, graph, graph_def, context, settings)
    except Exception as error:
        if session is not None:
            session.close()
        dismantle(graph)
        if isinstance(error, InvalidArgumentError):
            raise InvalidArgumentError(f"failed to load model '{context.name}': {error}") from error
        if isinstance(error, TrivetError):
            raise
        raise load_failure(error, context.name, written_by) from error
    return Network(graph, session, signature, on_callers_thread=settings.inter_op_threads == 1)


def _fill(
    session: Any,
    saved: saved_model.SavedModel | None,
    graph: Any,
    graph_def: Any,
    context: ModelContext,
    settings: Settings,
) -> Signature:
    """Initialize what the graph holds, and tell its inputs and outputs."""
    if saved is not None:
        saved_model.restore(session, saved)
        return saved.signature
    for name in graphdef.init_ops(settings, context):
        session.run(name)
    return graphdef.signature(context.config, graph, graph_def)
