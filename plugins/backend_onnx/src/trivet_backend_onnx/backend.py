"""The backend, and the models that it loads."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendModel,
    InstanceContext,
    InstanceKind,
    ModelContext,
)
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.errors import InvalidArgumentError
from trivet.host_policy import HostPolicy
from trivet.signatures import is_complete

from trivet_backend_onnx import autocomplete
from trivet_backend_onnx.instance import OnnxInstance
from trivet_backend_onnx.providers import captures_graphs, execution_providers
from trivet_backend_onnx.runtime import forward_log, use_global_thread_pool
from trivet_backend_onnx.session import create_session, model_file
from trivet_backend_onnx.settings import BackendOptions, SessionSettings, warn_of_unused
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.validation import validate


class OnnxBackend(Backend):
    """ONNX Runtime. Source: Triton's onnxruntime_backend, whose parameters and messages it shares."""

    def __init__(self) -> None:
        forward_log()

    def auto_complete(self, context: ModelContext) -> None:
        """Fill in inputs, outputs, ``max_batch_size`` and ``dynamic_batching`` from the model file.

        Does nothing, and opens no file, where inputs and outputs are configured. Raises what :meth:`load` does, what
        :func:`~trivet_backend_onnx.session.create_session` does, and :class:`~trivet.errors.InvalidArgumentError` where
        the model cannot be described.
        """
        if is_complete(context.config):
            return
        settings = _settings(context)
        # A throwaway session, for its signature only; optimizing the graph would be work for nothing. It is on a GPU
        # where the instances are, as a model may have operators that no other device knows.
        groups = context.config.instance_group
        kind: InstanceKind = "GPU" if any(g.kind == ModelInstanceGroup.KIND_GPU for g in groups) else "CPU"
        session = create_session(context, settings.only_looked_at(), model_file(context), kind)
        signature = Signature.of(session)
        del session
        options = BackendOptions.read(context)
        autocomplete.complete(context.config, signature, options.default_max_batch_size, context.logger)

    def load(self, context: ModelContext) -> BackendModel:
        """Read the settings and find the file; sessions are created with the instances.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a setting or an accelerator that is not allowed, and
        :class:`~trivet.errors.UnavailableError` where there is no file.
        """
        warn_of_unused(context, context.logger)
        settings = _settings(context)
        execution_providers(context, "CPU", 0)  # refuses unknown accelerators before an instance starts
        return OnnxModel(context, settings, model_file(context))


def _settings(context: ModelContext) -> SessionSettings:
    """The settings of a model's sessions. Makes the thread pools that sessions may share, which must exist before."""
    pool = BackendOptions.read(context).global_thread_pool
    if pool is not None:
        try:
            use_global_thread_pool(*pool)
        except RuntimeError as error:
            raise InvalidArgumentError(f"--backend-config=onnxruntime,enable-global-threadpool: {error}") from error
    return SessionSettings.read(context)


class OnnxModel(BackendModel):
    """One model version, and the sessions that its instances share.

    A session may be run by many threads at once. On the CPU all instances share one: MiniLM ran as many inferences per
    second with one session as with one for each of two instances, and a second session costs another 105 MB for its
    90 MB of weights. On a GPU each instance has its own, as in Triton, so that each has its own stream.
    ``share_session_between_instances`` decides otherwise. Instances with a host policy share only with those of the
    same: a session's threads run where the thread does that created it.
    """

    def __init__(self, context: ModelContext, settings: SessionSettings, path: Path) -> None:
        self._context = context
        self._name = f"'{context.name}' version {context.version}"
        self._settings = settings
        self._path = path
        self._lock = threading.Lock()
        self._shared: dict[tuple[InstanceKind, int, HostPolicy], Any] = {}

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        """On the instance's thread, several at a time.

        Raises what :func:`~trivet_backend_onnx.session.create_session` and
        :func:`~trivet_backend_onnx.validation.validate` raise.
        """
        share = self._settings.share_session
        if share is None:
            share = context.kind != "GPU"
        captures = captures_graphs(execution_providers(self._context, context.kind, context.device_id))
        if share and captures:
            raise InvalidArgumentError(
                f"model {self._name} cannot have share_session_between_instances with CUDA graphs, which work on one"
                " memory; leave one of them out"
            )
        if share:
            session = self._shared_session(context)
        else:
            session = self._create_session(context, f"instance '{context.name}' of model {self._name}")
        signature = Signature.of(session)
        validate(self._context.config, signature)
        device_id = context.device_id if context.kind == "GPU" else None
        return OnnxInstance(self._context, self._settings, session, signature, device_id, captures=captures)

    def _shared_session(self, context: InstanceContext) -> Any:
        """The session of the device, made by the first instance that asks while the others wait."""
        policy = context.host_policy
        place = (context.kind, context.device_id, policy if policy.binds else HostPolicy())
        with self._lock:
            session = self._shared.get(place)
            if session is None:
                session = self._shared[place] = self._create_session(context, f"model {self._name}")
            return session

    def _create_session(self, context: InstanceContext, used_by: str) -> Any:
        settings = self._settings
        if context.host_policy.cpu_cores and not settings.intra_op_threads:
            # Left to choose, ONNX Runtime starts a thread for each core of the machine and binds it to that core.
            settings = replace(settings, intra_op_threads=len(os.sched_getaffinity(0)))
        return create_session(self._context, settings, self._path, context.kind, context.device_id, used_by=used_by)

    def close(self) -> None:
        """Drop the sessions, whose instances are closed: that frees them, without waiting for a garbage collection."""
        self._shared.clear()
