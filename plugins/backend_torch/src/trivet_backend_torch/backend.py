"""The backend: models, and how their networks are loaded and shared."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from trivet.backend import Backend, BackendInstance, BackendModel, InstanceContext, InstanceKind, ModelContext
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, TrivetError
from trivet.signatures import is_complete

from trivet_backend_torch import autocomplete, eager, exported, torchscript
from trivet_backend_torch.devices import Cuda, DeviceUse, Host, open_device
from trivet_backend_torch.files import FileKind, ModelFile, find_model
from trivet_backend_torch.graphs import Recorder, graph_shapes
from trivet_backend_torch.handlers.model import HandlerModel, complete_handler
from trivet_backend_torch.instance import TorchInstance
from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import describe, is_out_of_memory, torch
from trivet_backend_torch.settings import Settings, warn_of_unused
from trivet_backend_torch.threads import apply_to_process, prepare_thread
from trivet_backend_torch.warming import compile_now


class TorchBackend(Backend):
    """PyTorch. Source: Triton's pytorch_backend, whose names, parameters and messages it shares."""

    def auto_complete(self, context: ModelContext) -> None:
        """Fill in inputs, outputs, ``max_batch_size`` and ``dynamic_batching`` where the model's file tells them.

        Opens no file where inputs and outputs are configured. Raises what :meth:`load` does and, where the file does
        not tell, :class:`~trivet.errors.InvalidArgumentError` with what the network takes.
        """
        if is_complete(context.config):
            return
        settings = Settings.read(context)
        file = find_model(context)
        if file.kind is FileKind.HANDLER:
            complete_handler(context, file.path)
            return
        # Not on a GPU: only its signature is looked at.
        gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in context.config.instance_group)
        network = load_network(context, settings, file, torch.device("cpu"), compile_it=False, any_device=gpu)
        try:
            autocomplete.complete(context.config, network.signature, settings.default_max_batch_size, context.logger)
        finally:
            network.close()

    def load(self, context: ModelContext) -> BackendModel:
        """Read the settings and find the file; networks are loaded with the instances.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is not allowed or a file that is no
        model, and :class:`~trivet.errors.UnavailableError` where there is none.
        """
        warn_of_unused(context, context.logger)
        settings = Settings.read(context)
        apply_to_process(context, settings)
        file = find_model(context)
        if file.kind is FileKind.HANDLER:
            return HandlerModel(context, settings, file.path)
        if settings.compile_options is not None and file.kind not in (FileKind.EAGER, FileKind.PICKLE):
            raise InvalidArgumentError(
                f"model '{context.name}' sets TORCH_COMPILE, which {file.kind.value} cannot have"
            )
        return TorchModel(context, settings, file)

    def trim(self) -> None:
        """Give the GPU memory back that PyTorch's allocator keeps, where CUDA was used at all."""
        torch.cuda.empty_cache()


class TorchModel(BackendModel):
    """One model version.

    As in Triton each instance loads a network of its own, so that models with state of their own are kept apart;
    ``ENABLE_WEIGHT_SHARING`` lets the instances on one device share one.
    """

    def __init__(self, context: ModelContext, settings: Settings, file: ModelFile) -> None:
        self._context = context
        self._settings = settings
        self._file = file
        self._graphs = graph_shapes(context.config)
        optimization = context.config.optimization
        self._use = DeviceUse(
            keep_outputs=settings.outputs_on_device,
            clean_cache=settings.cache_cleaning,
            pinned_inputs=not optimization.HasField("input_pinned_memory") or optimization.input_pinned_memory.enable,
            pinned_outputs=not optimization.HasField("output_pinned_memory")
            or optimization.output_pinned_memory.enable,
            pinned_memory=context.pinned_memory,
            gpu_memory=context.gpu_memory,
        )
        self._lock = threading.Lock()
        self._shared: dict[tuple[InstanceKind, int], Network] = {}
        self._loaded: list[Network] = []

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        """On the instance's thread, several at a time.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a file that PyTorch refuses and a configuration that is
        not the network's, :class:`~trivet.errors.UnavailableError` where a GPU is asked for and not there, and
        :class:`~trivet.errors.ResourceExhaustedError` without memory.
        """
        settings = self._settings
        prepare_thread(settings)
        device = open_device(context, self._context.name, self._use)
        recorder = None
        try:
            network = self._network(context, device)
            if self._graphs and isinstance(device, Cuda):
                recorder = Recorder(network, device, self._context.name)
                network = replace(network, forward=recorder)
            instance = TorchInstance(self._context, settings, network, device)
        except BaseException:
            device.close()
            raise
        try:
            if settings.compile_options is not None:
                compile_now(self._context, instance, self._context.logger)
            if recorder is not None:
                recorder.record(self._context.config, instance, self._graphs)
        except BaseException:
            instance.close()
            raise
        return instance

    def _network(self, context: InstanceContext, device: Host) -> Network:
        if not self._settings.weight_sharing:
            return self._load(device)
        with self._lock:
            place = (context.kind, context.device_id)
            if place not in self._shared:
                network = self._load(device)
                # What its code has begun is on this instance's stream, and the others have theirs.
                device.settle()
                self._shared[place] = network
            return self._shared[place]

    def _load(self, device: Host) -> Network:
        network = load_network(self._context, self._settings, self._file, device.device)
        self._loaded.append(network)
        return network

    def close(self) -> None:
        """Let go of the networks, whose instances are closed, and of their code."""
        self._shared.clear()
        for network in self._loaded:
            network.close()
        self._loaded.clear()


def load_network(
    context: ModelContext,
    settings: Settings,
    file: ModelFile,
    device: Any,
    *,
    compile_it: bool = True,
    any_device: bool = False,
) -> Network:
    """Load a file onto a device (``None``: where it was saved).

    Raises :class:`~trivet.errors.InvalidArgumentError` for what PyTorch refuses, in Triton's words, and
    :class:`~trivet.errors.ResourceExhaustedError` where there is not enough memory.
    """
    try:
        match file.kind:
            case FileKind.TORCHSCRIPT:
                return torchscript.load(file.path, device)
            case FileKind.EXPORTED:
                return exported.load_program(file.path, device)
            case FileKind.AOTINDUCTOR:
                return exported.load_package(
                    file.path, None if any_device else device, one_thread=not settings.weight_sharing
                )
            case FileKind.EAGER:
                return eager.load(file.path, device, settings, context.name, compile_it=compile_it)
            case _:
                return eager.load_pickle(file.path, device, settings, context.name, compile_it=compile_it)
    except TrivetError as error:
        raise type(error)(f"failed to load model '{context.name}': {error}") from error
    except Exception as error:
        message = f"failed to load model '{context.name}': {describe(error)}"
        if is_out_of_memory(error):
            raise ResourceExhaustedError(message) from error
        raise InvalidArgumentError(f"{message} ({type(error).__name__} while '{file.path.name}' was loaded)") from error
