"""The backend: models, and the instances that execute them."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
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
    OutputValue,
)
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.datatypes import BF16, BYTES
from trivet.errors import InternalError, InvalidArgumentError
from trivet.host_policy import HostPolicy
from trivet.tensor import Tensor

from trivet_backend_onnx import autocomplete
from trivet_backend_onnx.providers import execution_providers
from trivet_backend_onnx.runtime import (
    describe,
    forward_log,
    ort,
    use_global_thread_pool,
)
from trivet_backend_onnx.session import create_session, model_file
from trivet_backend_onnx.settings import BackendOptions, SessionSettings, warn_of_unused
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.tensors import DeviceResult, feed_for, feed_on, fetch_for, is_on_device
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
        if autocomplete.is_complete(context.config):
            return
        settings = _settings(context)
        # A throwaway session, for its signature only; optimizing the graph would be work for nothing. It is on a GPU
        # where the instances are, as a model may have operators that no other device knows.
        groups = context.config.instance_group
        kind: InstanceKind = "GPU" if any(g.kind == ModelInstanceGroup.KIND_GPU for g in groups) else "CPU"
        session = create_session(context, settings.unoptimized(), model_file(context), kind)
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
        if (context.kind != "GPU") if share is None else share:
            session = self._shared_session(context)
        else:
            session = self._create_session(context, f"instance '{context.name}' of model {self._name}")
        signature = Signature.of(session)
        validate(self._context.config, signature)
        device_id = context.device_id if context.kind == "GPU" else None
        return OnnxInstance(self._context, self._settings, session, signature, device_id)

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


class OnnxInstance(ArrayInstance):
    """Runs a session on this instance's thread. ``session.run`` releases the GIL while it computes."""

    def __init__(
        self,
        context: ModelContext,
        settings: SessionSettings,
        session: Any,
        signature: Signature,
        device_id: int | None = None,
    ) -> None:
        """``device_id`` is that of the session's GPU, where it has one."""
        config = context.config
        self._name = f"'{context.name}' version {context.version}"
        self._session = session
        inputs = signature.inputs | signature.optional_inputs
        self._feeds = {name: feed_for(tensor, config.max_batch_size) for name, tensor in inputs.items()}
        # Inputs that are bound cannot be text; a model that takes any gets all of its inputs from the host.
        self._binds = (
            device_id is not None
            and hasattr(ort.OrtValue, "from_dlpack")  # newer versions have the other direction too
            and all(tensor.datatype is not BYTES for tensor in inputs.values())
        )
        self._device_id = device_id
        # Outputs that can be left on the GPU.
        self._leaves: frozenset[str] = frozenset()
        if device_id is not None and self._binds:
            self._leaves = frozenset(
                name
                for name, tensor in signature.outputs.items()
                if tensor.dims and tensor.datatype not in (BYTES, BF16)
            )
            for name, tensor in inputs.items():
                if tensor.dims or config.max_batch_size > 0:
                    self._feeds[name] = feed_on(device_id, self._feeds[name])
        self._fetches = {
            output.name: fetch_for(signature.outputs[output.name], _scalar_shape(output, config.max_batch_size))
            for output in config.output
        }
        for state in config.sequence_batching.state:
            shape = None if config.max_batch_size > 0 else tuple(state.dims)
            self._fetches.setdefault(state.output_name, fetch_for(signature.outputs[state.output_name], shape))
        self._bfloat16 = frozenset(
            name for name in self._fetches if signature.outputs[name].onnx_type == "tensor(bfloat16)"
        )
        self._options = ort.RunOptions()
        # What goes wrong in a run is raised and answered; logged as well, any client could fill the log.
        self._options.log_severity_level = 4
        for key, value in settings.run_config_entries:
            self._options.add_run_config_entry(key, value)

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        """One ``session.run`` over the whole batch. Results view ONNX Runtime's memory, on the host.

        Those that go into a region are left on the GPU.

        Raises :class:`~trivet.errors.InvalidArgumentError` for text that is not UTF-8, and
        :class:`~trivet.errors.InternalError` with ONNX Runtime's message where the run fails.
        """
        feeds = self._feeds
        values = {name: feeds[name](tensor) for name, tensor in inputs.items()}
        try:
            left = self._leaves.intersection(self.placed) if self.placed else self.placed
            if left or (self._binds and any(map(is_on_device, values.values()))):
                results = self._run_bound(values, outputs, left)
            elif self._bfloat16.isdisjoint(outputs):
                results = self._session.run(outputs, values, self._options)
            else:
                results = self._run_bound(values, outputs)
        except UnicodeDecodeError as error:
            raise InternalError(f"model {self._name} computed text that is not valid UTF-8: {error}") from error
        except Exception as error:
            raise InternalError(f"{describe(error)} (model {self._name})") from error
        return {
            name: DeviceResult(value) if name in left else self._fetches[name](value)
            for name, value in zip(outputs, results, strict=True)
        }

    def _run_bound(
        self, values: Mapping[str, Any], outputs: Sequence[str], left: Collection[str] = ()
    ) -> Sequence[Any]:
        """As ``session.run``, but the results are ``OrtValue`` objects: numpy has no bfloat16 for ``run`` to return.

        Those of ``left`` stay on the GPU. So may ``values`` be there, and still be being computed.
        """
        binding = self._session.io_binding()
        for name, value in values.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        if any(map(is_on_device, values.values())):
            binding.synchronize_inputs()
        for name in outputs:
            if name in left:
                binding.bind_output(name, "cuda", self._device_id)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding, self._options)
        results: Sequence[Any] = binding.get_outputs()
        return results

    def close(self) -> None:
        """Let go of the session; the last instance of a session frees it."""
        self._session = None


def _scalar_shape(output: Any, max_batch_size: int) -> tuple[int, ...] | None:
    """What shape a rank-0 result takes: the configuration's, as far as the model is concerned."""
    if max_batch_size > 0:
        return None
    return tuple(output.reshape.shape) if output.HasField("reshape") else tuple(output.dims)
