"""The backend: models, and the engines that their instances share."""

from __future__ import annotations

import threading

from trivet.backend import Backend, BackendModel, InstanceContext, ModelContext
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.errors import TrivetError, UnavailableError
from trivet.signatures import is_complete

from trivet_backend_trt import autocomplete, driver
from trivet_backend_trt.device import Device
from trivet_backend_trt.engine import Engine
from trivet_backend_trt.instance import TensorRTInstance
from trivet_backend_trt.plan import Plan, find_plan
from trivet_backend_trt.profiles import select
from trivet_backend_trt.settings import Settings, warn_of_unused
from trivet_backend_trt.validation import validate


class TensorRTBackend(Backend):
    """TensorRT. Source: Triton's tensorrt_backend, whose options, parameters and messages it shares."""

    def auto_complete(self, context: ModelContext) -> None:
        """Fill in inputs, outputs, ``max_batch_size`` and ``dynamic_batching`` from the plan, which takes a GPU.

        Loads nothing where inputs and outputs are configured. Raises what :meth:`load` does, what
        :class:`~trivet_backend_trt.engine.Engine` does, and :class:`~trivet.errors.InvalidArgumentError` where the plan
        contradicts the configuration.
        """
        if is_complete(context.config):
            return
        settings = Settings.read(context)
        groups = context.config.instance_group
        index = next((gpu for group in groups for gpu in group.gpus), 0)
        plan = _plan_for(context, index)
        device = Device(index)
        with device.current():
            engine = Engine(plan, settings, context.name, device, _dla_core_of(groups[0]) if groups else None)
        try:
            autocomplete.complete(context.config, engine.signature, settings.default_max_batch_size, context.logger)
        finally:
            engine.close()

    def load(self, context: ModelContext) -> BackendModel:
        """Read the settings and find the plan; engines are loaded with the instances.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is not allowed and a file that is no
        plan, and :class:`~trivet.errors.UnavailableError` where there is no file or no GPU.
        """
        warn_of_unused(context, context.logger)
        settings = Settings.read(context)
        if not context.config.cc_model_filenames:
            find_plan(context, None)
        _require_gpu(context.name)
        return TensorRTModel(context, settings)


class TensorRTModel(BackendModel):
    """One model version. The instances on a device, or on an NVDLA core, share an engine, whose contexts are theirs."""

    def __init__(self, context: ModelContext, settings: Settings) -> None:
        self._context = context
        self._settings = settings
        self._lock = threading.Lock()
        self._engines: dict[tuple[int, int | None], Engine] = {}

    def create_instance(self, context: InstanceContext) -> TensorRTInstance:
        """On the instance's thread, several at a time.

        Raises what :class:`~trivet_backend_trt.engine.Engine`, :func:`~trivet_backend_trt.validation.validate` and
        :class:`~trivet_backend_trt.instance.TensorRTInstance` raise, and
        :class:`~trivet.errors.UnavailableError` for an instance that is not on a GPU.
        """
        model = self._context
        if context.kind != "GPU":
            raise UnavailableError(
                f"unable to load model '{model.name}', TensorRT backend supports only GPU device: instance"
                f" '{context.name}' is of KIND_{context.kind}; use instance_group {{ kind: KIND_GPU }}"
            )
        plan = _plan_for(model, context.device_id)
        device = Device(context.device_id)
        device.make_current()
        core = next((number for kind, number in context.secondary_devices if kind == "NVDLA"), None)
        engine = self._engine(plan, device, core)
        profiles = select(engine.signature.profiles, context.profiles, model.name)
        validate(model.config, engine.signature, profiles, context.name)
        return TensorRTInstance(model, self._settings, engine, profiles, device)

    def _engine(self, plan: Plan, device: Device, core: int | None) -> Engine:
        """The engine of the device, loaded by the first instance that asks while the others wait."""
        with self._lock:
            place = (device.index, core)
            engine = self._engines.get(place)
            if engine is None:
                engine = self._engines[place] = Engine(plan, self._settings, self._context.name, device, core)
            return engine

    def close(self) -> None:
        """Free the engines, whose instances are closed."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()


def _plan_for(context: ModelContext, device_id: int) -> Plan:
    """The plan for a GPU, which is there. A file that is missing or damaged is told of without one too."""
    if context.config.cc_model_filenames:
        _require_gpu(context.name, device_id)
        return find_plan(context, driver.compute_capability(device_id))
    plan = find_plan(context, None)
    _require_gpu(context.name, device_id)
    return plan


def _require_gpu(model: str, device_id: int = 0) -> None:
    try:
        driver.require_device(device_id)
    except TrivetError as error:
        raise UnavailableError(
            f"model '{model}' needs an NVIDIA GPU, as TensorRT runs on nothing else: {error.message}"
        ) from error


def _dla_core_of(group: ModelInstanceGroup) -> int | None:
    return next((int(device.device_id) for device in group.secondary_devices), None)
